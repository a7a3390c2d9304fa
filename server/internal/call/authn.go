package call

import (
	"context"

	"patd/internal/bearer"
	"patd/server/signin"
	"patd/tokens"
	"patd/tokens/secret"
)

// Verifier tells who signed in with a JWT. Whatever is wrong with the token is an *tokens.Error of CodeUnauthenticated; a
// provider that cannot be asked is one of CodeUnavailable, and says nothing of the token. No error holds the token or any part
// of it. A Verifier may be used by many goroutines at once.
type Verifier interface {
	Verify(ctx context.Context, jwt tokens.Secret) (signin.Identity, error)
}

var _ Verifier = (*signin.SignIn)(nil)

// authenticator finds out who calls.
type authenticator struct {
	Service *tokens.Service
	signIn  Verifier // nil: nobody signs in
}

// authenticate reads the Authorization headers, and nothing else. No header is nobody, the zero Actor; a header that is not
// one good bearer credential is an error at once, and so is an outage, which says nothing of the credential.
func (a authenticator) authenticate(ctx context.Context, headers []string, peer tokens.Peer) (tokens.Actor, error) {
	switch len(headers) {
	case 0:
		return tokens.Actor{Peer: peer}, nil
	case 1:
	default:
		return tokens.Actor{}, BadCredential("give exactly one Authorization header")
	}
	token, ok := bearer.Token(headers[0])
	if !ok || token == "" {
		return tokens.Actor{}, BadCredential("the Authorization header must be `Bearer` and a token")
	}
	// No secret of patd's has the form of a JWT. Where nobody can sign in, one is garbage like any other.
	if a.signIn != nil && signin.LooksLikeJWT(token) {
		return a.user(ctx, secret.NewSecret(token), peer)
	}
	return a.Service.Authenticate(ctx, secret.NewSecret(token), peer)
}

// user is the actor of a signed-in user. Its features are nil when its token says nothing of them.
func (a authenticator) user(ctx context.Context, jwt tokens.Secret, peer tokens.Peer) (tokens.Actor, error) {
	if remembered, ok := ctx.(*FromMemoryOnly); ok {
		ctx = remembered.Context // what it may wait for is the provider's keys, which have a limit of their own
	}
	who, err := a.signIn.Verify(ctx, jwt)
	if err != nil {
		return tokens.Actor{}, err
	}
	actor := tokens.Actor{Kind: tokens.UserActor, User: who.User, Peer: peer}
	if who.HasFeatures {
		actor.Features = append([]string{}, who.Features...)
	}
	return actor, nil
}

// NoCredential is the refusal of a call that shows no credential.
func NoCredential() *tokens.Error {
	return tokens.Fail(tokens.CodeUnauthenticated, "CREDENTIAL_REQUIRED", "this call needs a credential: Authorization: Bearer and a token")
}

// BadCredential is the refusal of a credential that is none; text says what it should be.
func BadCredential(text string) *tokens.Error {
	return tokens.Fail(tokens.CodeUnauthenticated, "CREDENTIAL_INVALID", text)
}
