// Package tokensource is for the programs that hold a personal access token: it gives them the current secret, and
// rotates the token before its end, without an interruption.
//
//	api, err := tokensource.REST("https://patd.example.com", nil)
//	…
//	source, err := tokensource.New(tokensource.Config{API: api, Store: tokensource.NewFile("/var/lib/job/token")})
//	…
//	go source.Run(ctx)
//	client := &http.Client{Transport: source.RoundTripper(nil, "https://api.example.com")}
//
// The owner of the token decides whether it may do this: the token has self_rotate, and for a longer life
// renewable_until. Without them the Source still gives the secret, follows its file, and says in [Status] when it ends.
//
// # When it rotates
//
// A token that may be renewed is renewed [Config].Before its end, or when a third of its life is left if that is later.
// One that may not be renewed gets a new secret then, and keeps its end. With [Config].Every it gets a new secret that
// often, whatever its end. Each program adds a random part, so that many do not call at one moment.
//
// # The only secret is never lost
//
// A new secret is stored before it is used, and the one before works on for the grace. A program that is killed after
// patd has rotated the token and before the new secret is stored finds the earlier one when it starts again, which
// still works. It sees that a rotation is in progress, and repeats the request under the same idempotency key, which is
// made from the secret and the request: patd then returns the same new secret. So it must start again within the grace,
// and within 24 hours, with the same settings. Two programs on one file, even on two machines, get one and the same new
// secret in this way.
//
// Where the new secret cannot be stored, the earlier one stays in use, and storing is tried again. Before the request
// the Source makes sure that the file can be replaced.
package tokensource
