// Package signin tells who a signed-in user is, from a JWT of an OpenID provider that the operator configured.
//
// # What is checked
//
// A token is at most 16 KiB, in compact form, and names by its `iss`, to the byte, one of the configured issuers. Its
// `aud` holds one of the audiences configured for that issuer. It is signed under one of the algorithms pinned for the
// issuer (RS256, PS256, ES256 and EdDSA unless configured; never none, never a symmetric one) by a key which that
// issuer publishes, is for signing, and is of the algorithm's type; RSA keys have 2048 to 8192 bits. `exp` is
// required, `nbf` and `iat` count where given; all three are read with the leeway (30 s unless configured). `typ` is
// absent, JWT or at+jwt (RFC 9068), which tells logout and event tokens apart. Keys that a token brings along or points
// to (`jwk`, `jku`, `x5c`, `x5u`) are not looked at; `crit` and `b64` are refused, as are tokens bound to a key of their
// sender (`cnf`), whose proof patd does not ask for.
//
// Whatever is wrong with a token is one answer, CREDENTIAL_INVALID, of which the log knows more. The token itself, and what
// it says, is in no error.
//
// # Who it is
//
// The user's id is one claim, `sub` unless configured: a string of 1 to 255 bytes without control characters, and not
// "me". Users of several issuers share one namespace: whoever runs one of them can name any user of another. Issuers
// that do not trust each other get a UserPrefix each, which stands before the claim; an issuer is then
// never believed an id that begins with the longer prefix of another.
//
// A FeaturesClaim says in the token itself what the user holds: an array of strings, or one string with spaces between
// them, as in `scope`. It is true at the moment the token was issued and is not looked at again.
//
// # The provider's keys
//
// Discovery and keys are fetched when they are first needed, so patd starts while a provider is down, and together,
// by one request at a time per issuer. A provider that does not answer is SIGNIN_UNAVAILABLE, never a bad token, and is
// not asked again for three seconds. Keys are renewed after ten minutes, behind the caller's back, and while that fails
// the last ones stay good for a day. A signature that no known key made is a reason to look for new keys: five times
// at once, then once in five seconds, so that tokens with made-up keys do not become requests to the provider. A provider
// that publishes a key before it signs with it is never affected; another one's users may be refused for these five
// seconds if they coincide with such a flood.
//
// Every fetch is bounded: five seconds, a megabyte, no redirect to another host, https unless it is to this machine.
package signin
