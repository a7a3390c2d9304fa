// Package oauth serves the OAuth endpoints: introspection (RFC 7662), revocation (RFC 7009), token exchange (RFC 8693) and refresh
// (RFC 6749 section 6), server metadata (RFC 8414) and the public keys (RFC 7517).
//
// They take HTML forms, which the gateway does not, and so stand beside it: the HTTP front, authentication of the client, and then
// tokens.Service, with the limits, the log line and the metrics of the chain. A client shows a service token, by Basic, in the
// form, or as a bearer; where none is shown, possession of the token that is presented is what counts.
package oauth
