// Package signin identifies signed-in users by a JWT of an OpenID provider that the operator configured.
//
// # What is checked
//
// A token is at most 16 KiB, in compact form, and its `iss` equals one of the configured issuers byte for byte. Its
// `aud` holds one of the audiences configured for that issuer. Its algorithm is one of those pinned for the issuer
// (RS256, PS256, ES256 and EdDSA unless configured; never none, never a symmetric one). Its key is published by that
// issuer, is for signing, and is of the algorithm's type; RSA keys have 2048 to 4096 bits. `exp` is required; `nbf` and
// `iat` count if present; all three allow the leeway (30 s unless configured). `typ` is absent, JWT or at+jwt (RFC
// 9068), which excludes logout and event tokens. Keys that a token contains or points to (`jwk`, `jku`, `x5c`, `x5u`)
// are ignored. `crit` and `b64` are rejected, and so are tokens bound to a key of their sender (`cnf`), whose proof
// patd does not support.
//
// Every fault of a token is one error, CREDENTIAL_INVALID; the log has the cause. No error contains the token or its
// claims.
//
// # Who it is
//
// The user's id is one claim, `sub` unless configured: a string of 1 to 255 bytes without control characters, and not
// "me". Users of several issuers share one namespace: the operator of one issuer can name any user of another. Issuers
// that do not trust each other get a UserPrefix each, which is put before the claim. An id that begins with the longer
// prefix of another issuer is then rejected.
//
// A FeaturesClaim names the user's features in the token itself: an array of strings, or one string with spaces between
// them, as in `scope`. It is true at the moment the token was issued and is not checked again.
//
// # The provider's keys
//
// Discovery and keys are fetched together on first use, so patd starts while a provider is down. Each issuer has one
// request at a time. A provider that does not answer is SIGNIN_UNAVAILABLE, never a bad token, and gets no new request
// for three seconds. Keys are renewed in the background after ten minutes; while that fails, the last ones stay valid
// for a day. A signature by an unknown key triggers a fetch of new keys: five times at once, then once in five seconds,
// so that tokens with made-up keys do not become requests to the provider. A provider that publishes a key before it
// signs with it is never affected. Users of any other may be rejected for these five seconds during such a flood.
//
// Every fetch is limited: five seconds, a megabyte, no redirect to another host, https unless it is to this machine.
package signin
