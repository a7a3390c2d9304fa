// Package manage is for programs that manage tokens, users and all else that patd keeps: a settings page, an
// administration tool, a job that ends access.
//
//	conn, err := client.Dial("patd.internal:9090", client.ServiceToken(client.TokenFile("/run/secrets/patd")))
//	…
//	patd := manage.New(conn, manage.Config{})
//	made, err := patd.Tokens.CreateToken(ctx, &patdv1.CreateTokenRequest{User: "alice", Name: "ci", Scopes: scopes})
//	switch {
//	case errors.Is(err, manage.ScopeNotHeld): // the user does not hold one of the scopes
//	…
//	for token, err := range patd.EachToken(ctx, &patdv1.ListTokensRequest{User: "alice"}) {
//
// The fields of [Client] are the services of patd's contract, with all their methods. Beside them it has what a program
// would otherwise write for itself:
//
//   - Repeats. A call that fails because patd or the network is out, or because it came too often, is repeated, with
//     growing pauses, or as long after as patd says; see [Config]. Every call of patd may be repeated: one that makes a
//     secret gets an idempotency key, unless it has one, so that the repeated call returns the same secret and nothing
//     is made twice.
//   - Errors. Each is an [*Error] with patd's stable reason, and errors.Is compares it with a [Reason].
//   - Pages. The Each methods are iterators over all pages of a list.
//
// A change that is repeated under an etag, and whose first call happened unheard, fails with [PreconditionFailed], and
// a catalogue entry that is created again says that it exists. [Error].Attempts says that a call was repeated.
package manage
