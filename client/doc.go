// Package client is for the company's own services that accept personal access tokens. It decides about a token out of
// memory in less than a microsecond, and drops that decision as soon as a change of the token is received.
//
// # In a program
//
// A [Verifier] asks patd over a gRPC connection that carries a service token with the permission introspect:
//
//	conn, err := client.Dial("patd.internal:9090", client.ServiceToken(client.TokenFile("/run/secrets/patd")))
//	…
//	verifier, err := client.New(conn, client.Config{Audience: "reports"})
//	…
//	defer conn.Close()
//	defer verifier.Close()
//
// [Guard] puts it in front of net/http handlers, [UnaryServerInterceptor] and [StreamServerInterceptor] in front of
// gRPC methods. Handlers get the caller from [FromContext]. All of them take a [Checker]. [Static] is one too, for work
// without a patd, and so is the fake of package clienttest. One Verifier serves a whole program: it holds one cache,
// one watch and one stream of requests.
//
// # Decisions and faults
//
// [Verifier.Verify] returns a [Result] or an error. A Result is a decision: [Allow], or the reason for a refusal. An
// error means that nothing is known about the token, since patd does not respond or cannot decide. The call at hand
// must then fail with 503, never with 401, and never pass. There is no option to let calls through during an outage: an
// attacker who causes one could then use revoked tokens.
//
// # When a cached answer is used
//
// The Verifier watches patd's change feed, which reports within a moment which tokens and users have changed, and sends
// a heartbeat each second. A cached answer is used only
//
//   - while the last message of the watch is at most 3 seconds old,
//   - if no change of its token or its user was received since the answer was made, and
//   - until the token expires, and for [Config].MaxAge at most.
//
// (The answer's cache_for is for callers without a watch.) Otherwise patd is asked. So a revoked token is refused as
// soon as the revocation is received, usually within milliseconds. If the connection hangs or is cut, it is refused
// after 3 seconds at most: each check then asks patd, and fails without a response. A broken watch is resumed at its
// last position. The cache is used again once all missed changes have been received. If patd cannot report what was
// missed, or has another history than before, the whole cache is dropped.
//
// An answer may be older than a change of its token and arrive after it, from a slow connection or a replica that lags
// behind. Answers and changes carry their position in the change feed; an answer from before a change that was received
// is not cached. A check that gets such an answer while it waits asks once more.
//
// Scopes are decided for each call, from those in effect. An answer is stored under a keyed digest of the token and the
// audience. The digest covers the client's address too, unless patd reports (any_client_ip) that no network binds the
// token, so that the answer holds for every address. The token itself is not stored. The key of the digest is random
// and never leaves the process. [Config].MaxEntries and [Config].MaxBytes bound the cache.
//
// Refusals that are final for a secret (not found, expired, revoked, superseded) are cached for 2 seconds, in a table
// of their own, so that garbage evicts only garbage. Refusals that may be taken back (suspended, blocked, another
// audience, another network) are never cached. Text that does not have the form of a token, checksum included, is
// refused without a request. So is a known prefix that is not for introspection; patd judges unknown ones.
//
// # Requests and reports
//
// Concurrent requests share one stream; if it breaks or is not served, each is a call. Concurrent checks of one token
// share one request. A check never takes the answer to a request from before it, unless a cached answer would do.
//
// Each use of a token that passed from the cache is reported, the latest of each token every [Config].ReportEvery and
// at [Verifier.Close], so that last_used_time includes them. Refused attempts do not count as uses.
//
// # Clocks
//
// patd decides about expiry: an answer says how long the token has left, which is counted from before the request was
// sent. A clock that is wrong by hours may cost requests, but lets nothing pass.
package client
