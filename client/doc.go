// Package client is for the company's own services that take personal access tokens: it decides about a token in less
// than a microsecond out of memory, and no later than the change itself is heard of, it does not any more.
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
// [Guard] puts it in front of net/http handlers, [UnaryServerInterceptor] and [StreamServerInterceptor] in front of gRPC
// methods. Handlers learn who calls by [FromContext]. All of them ask for a [Checker], which [Static] is too, for work without
// a patd, and the fake of package clienttest. One Verifier serves a whole program: it holds one memory, one watch and one
// stream of questions.
//
// # Decisions and faults
//
// [Verifier.Verify] returns a [Result], or an error. A Result is a decision, whichever: [Allow], or why not. An error means
// that nothing is known about the token, since patd does not answer or answers that it cannot tell. The call at hand
// must then fail with 503, never with 401, and never pass. There is no option to let calls through during an outage: who
// could cause one could then use what was revoked.
//
// # What memory may say
//
// The Verifier watches patd's change feed, which tells within a moment which tokens and users are no longer as they were,
// and has a heartbeat each second. An answer is used out of memory only
//
//   - while the watch was heard within the last 3 seconds,
//   - if nothing was told of its token and its user since the answer was made, and
//   - until the token expires, and for [Config].MaxAge at most.
//
// (The answer's cache_for is for callers that watch nothing.) Else patd is asked. So a token that was revoked is refused as soon as this was told, usually within milliseconds; and when
// the connection hangs, or is cut, after 3 seconds at most, since each check then asks, and fails if nobody answers.
// A watch that breaks is resumed where it was, and memory is used again once all that was missed has been told. If patd
// cannot tell what was missed, or is another one than before, everything is forgotten.
//
// An answer may be older than the news about its token and arrive after them, from a connection that was slow or a
// replica that lags behind. Answers and news carry their position in the change feed; an answer from before what was told
// is not remembered. A check that finds such an answer while it waits asks once more.
//
// Scopes are decided for each call, out of those in effect. An answer is stored under a keyed digest of the token and the
// audience, and of the client's address too unless patd says (any_client_ip) that no network binds the token, so that the
// answer holds for every address. The token itself is not stored. The key of the digest is random and the process's own.
// What is stored is bounded by [Config].MaxEntries and [Config].MaxBytes.
//
// Refusals that are final for a secret (not found, expired, revoked, superseded) are remembered for 2 seconds, in a place of
// their own, so that garbage pushes out nothing but garbage. Those that may be taken back (suspended, blocked,
// another audience, another network) are asked each time. Text that has not the form of a token, checksum included, is refused
// without a question. So is a known prefix that is not for introspection; an unknown one is patd's to judge.
//
// # What patd is asked, and told
//
// Many questions at once travel on one stream; where it breaks or is not served, each is a call. Checks of one token that
// come together are one question. A check never takes the answer to a question from before it, unless memory could.
//
// Each use of a token that memory let pass is reported, the latest of each token every [Config].ReportEvery and at
// [Verifier.Close], so that last_used_time counts them. Refused attempts count for nothing.
//
// # Clocks
//
// Expiry is patd's to say: an answer tells how long the token has left, which is counted from before the question was sent. A
// clock that is wrong by hours may cost questions, and lets nothing pass.
package client
