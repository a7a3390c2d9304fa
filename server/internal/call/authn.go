package call

import (
	"context"

	"patd/internal/bearer"
	"patd/server/signin"
	"patd/tokens"
	"patd/tokens/secret"
)

// Verifier verifies the JWT of a signed-in user. For any fault of the token it returns a *tokens.Error of
// CodeUnauthenticated. If the provider is unreachable, it returns one of CodeUnavailable, which says nothing about the
// token. No error contains the token or any part of it. A Verifier must be safe for concurrent use.
type Verifier interface {
	Verify(ctx context.Context, jwt tokens.Secret) (signin.Identity, error)
}

var _ Verifier = (*signin.SignIn)(nil)

// authenticator identifies the caller.
type authenticator struct {
	Service *tokens.Service
	signIn  Verifier // nil: sign-in is off
}

// authenticate reads the Authorization headers only. Without one it returns the zero Actor. It returns an error for
// anything other than one good bearer credential, and for an outage, which says nothing about the credential.
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
	// No secret of patd's has the form of a JWT. Without sign-in a JWT is rejected like any other garbage.
	if a.signIn != nil && signin.LooksLikeJWT(token) {
		return a.user(ctx, secret.NewSecret(token), peer)
	}
	return a.Service.Authenticate(ctx, secret.NewSecret(token), peer)
}

// user returns the actor of a signed-in user. Its features are nil if the token does not carry any.
func (a authenticator) user(ctx context.Context, jwt tokens.Secret, peer tokens.Peer) (tokens.Actor, error) {
	if remembered, ok := ctx.(*FromMemoryOnly); ok {
		ctx = remembered.Context // it may wait for the provider's keys only, which have a limit of their own
	}
	who, err := a.signIn.Verify(ctx, jwt)
	if err != nil {
		return tokens.Actor{}, err
	}
	actor := tokens.Actor{
		Kind:        tokens.UserActor,
		User:        who.User,
		Permissions: who.Permissions,
		Peer:        peer,
		ExpireTime:  who.End,
	}
	if who.HasFeatures {
		actor.Features = append([]string{}, who.Features...)
	}
	return actor, nil
}

// NoCredential returns the error for a call without a credential.
func NoCredential() *tokens.Error {
	return tokens.Fail(
		tokens.CodeUnauthenticated,
		"CREDENTIAL_REQUIRED",
		"this call needs a credential: Authorization: Bearer and a token",
	)
}

// BadCredential returns the error for an invalid credential; text says what is expected.
func BadCredential(text string) *tokens.Error {
	return tokens.Fail(tokens.CodeUnauthenticated, "CREDENTIAL_INVALID", text)
}
