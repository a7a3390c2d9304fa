// Package oauth serves the OAuth endpoints: introspection (RFC 7662), revocation (RFC 7009), token exchange (RFC 8693),
// refresh (RFC 6749 section 6), server metadata (RFC 8414) and the public keys (RFC 7517).
//
// They accept HTML forms, which the gateway does not, and so bypass it: the HTTP front, client authentication, and then
// tokens.Service, with the limits, the log line and the metrics of the chain. A client presents a service token with
// Basic, in the form, or as a bearer; without one, possession of the presented token counts.
package oauth
