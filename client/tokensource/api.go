package tokensource

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"patd/client"
	patdv1 "patd/gen/patd/v1"
	"patd/tokens/refusal"
	"patd/tokens/secret"
)

// API is patd as the bearer of a token sees it; see [REST] and [GRPC]. Its errors are gRPC statuses, with the ErrorInfo
// of patd where patd itself has answered.
type API interface {
	// Self describes the token of a secret.
	Self(ctx context.Context, s secret.Secret) (Self, error)
	// Rotate gives the token a new secret.
	Rotate(ctx context.Context, s secret.Secret, r *patdv1.RotateSelfRequest) (*patdv1.RotateSelfResponse, error)
}

// Self is a token, and the end of the secret that was presented.
type Self struct {
	Token *patdv1.Token
	// ExpireTime is when the presented secret stops working; zero: never. It is earlier than that of the token if the
	// token has been rotated.
	ExpireTime time.Time
}

// GRPC returns the API over a connection without credentials of its own: each call carries the secret. As with
// [client.Credential] it is not sent over a connection in plain text, unless that is by
// google.golang.org/grpc/credentials/local.
func GRPC(conn grpc.ClientConnInterface) API { return overGRPC{patdv1.NewSelfServiceClient(conn)} }

type overGRPC struct{ self patdv1.SelfServiceClient }

func bearing(s secret.Secret) grpc.CallOption {
	return grpc.PerRPCCredentials(client.ServiceToken(func(context.Context) (string, error) { return s.Reveal(), nil }))
}

// Self calls GetSelf.
func (g overGRPC) Self(ctx context.Context, s secret.Secret) (Self, error) {
	var md metadata.MD
	resp, err := g.self.GetSelf(ctx, &patdv1.GetSelfRequest{}, bearing(s), grpc.Header(&md))
	if err != nil {
		return Self{}, err
	}
	return selfOf(resp, md.Get(refusal.HeaderExpiresAt)), nil
}

// Rotate calls RotateSelf.
func (g overGRPC) Rotate(
	ctx context.Context,
	s secret.Secret,
	r *patdv1.RotateSelfRequest,
) (*patdv1.RotateSelfResponse, error) {
	return g.self.RotateSelf(ctx, r, bearing(s))
}

// selfOf reads a response; expires are the values of its header.
func selfOf(resp *patdv1.GetSelfResponse, expires []string) Self {
	out := Self{Token: resp.GetToken()}
	if len(expires) > 0 {
		out.ExpireTime, _ = time.Parse(time.RFC3339, expires[0]) // zero: not understood
	}
	return out
}

// infoOf returns the reason of an error of patd's, and the metadata; empty: it is none.
func infoOf(err error) (reason string, metadata map[string]string) {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason(), info.GetMetadata()
		}
	}
	return "", nil
}

// callError is an error of a call, in words for a log.
type callError struct {
	what string
	err  error
}

func (e *callError) Error() string {
	s := status.Convert(e.err)
	text := s.Message()
	if reason, _ := infoOf(e.err); reason != "" {
		text = reason + ": " + text
	} else if s.Code() != codes.Unknown {
		text = s.Code().String() + ": " + text
	}
	return e.what + ": " + text
}

func (e *callError) Unwrap() error { return e.err }

// Reason returns why patd refused what an error of a [Source] is about, such as SELF_ROTATE_NOT_ALLOWED or
// TOKEN_REVOKED; empty: patd did not refuse it.
func Reason(err error) string {
	var c *callError
	if !errors.As(err, &c) {
		return ""
	}
	reason, _ := infoOf(c.err)
	return reason
}
