package rpc

import (
	"context"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/wire"
	"patd/tokens"
)

// SignIn is how people sign in with a program such as patd's own command line.
type SignIn struct {
	Issuer, ClientID  string
	Scopes, Audiences []string
	Parameters        map[string]string
	RedirectPort      int // 0: any
}

// signInService serves patd.v1.SignInService.
type signInService struct {
	patdv1.UnimplementedSignInServiceServer
	signIn *SignIn // nil: none
}

var _ patdv1.SignInServiceServer = signInService{}

// GetSignIn returns how people sign in with a program.
func (s signInService) GetSignIn(context.Context, *patdv1.GetSignInRequest) (*patdv1.GetSignInResponse, error) {
	if s.signIn == nil {
		return nil, tokens.Fail(tokens.CodeNotFound, "SIGNIN_NOT_CONFIGURED",
			"nobody signs in to this server with a program: it has no --oidc-cli-client-id")
	}
	return &patdv1.GetSignInResponse{
		Issuer: s.signIn.Issuer, ClientId: s.signIn.ClientID, Scopes: s.signIn.Scopes, Audiences: s.signIn.Audiences,
		Parameters: s.signIn.Parameters, RedirectPort: int32(s.signIn.RedirectPort),
	}, nil
}

// WhoAmI returns who the caller is.
func (signInService) WhoAmI(ctx context.Context, _ *patdv1.WhoAmIRequest) (*patdv1.WhoAmIResponse, error) {
	a := call.ActorOf(ctx)
	out := &patdv1.WhoAmIResponse{Service: a.Name, Permissions: a.Permissions.Names(), Audience: a.Audience}
	if a.Kind == tokens.UserActor {
		out.User = a.User
	}
	if a.Kind == tokens.ServiceActor && !a.ExpireTime.IsZero() {
		out.ExpireTime = wire.ToTime(a.ExpireTime)
	}
	return out, nil
}
