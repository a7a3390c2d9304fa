// Package secevent takes security events (RFC 8417) that identity providers push (RFC 8935): POST /v1/security-events.
//
// Nobody is authenticated but the issuer, by its signature; package signin verifies it, with the issuer's published
// keys. What each type of event does is configured. It is done by tokens.Service in one transaction with the record of
// the event's id, so that an event acts once, and is acknowledged, 202, after the commit. Events that patd does not act
// on are acknowledged too.
package secevent
