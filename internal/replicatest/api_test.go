package replicatest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	patdv1 "patd/gen/patd/v1"
)

type decision = patdv1.IntrospectResponse_Decision

const (
	allow      = patdv1.IntrospectResponse_ALLOW
	revoked    = patdv1.IntrospectResponse_REVOKED
	superseded = patdv1.IntrospectResponse_SUPERSEDED
	suspended  = patdv1.IntrospectResponse_USER_SUSPENDED
)

// answerWithin is more than a server takes for any call: it gives up after 10 s by itself.
const answerWithin = 20 * time.Second

// api is a way to a running replica, as a service that may do everything.
type api struct {
	url        string // of REST
	conn       *grpc.ClientConn
	tokens     patdv1.TokenServiceClient
	users      patdv1.UserServiceClient
	audit      patdv1.AuditServiceClient
	introspect patdv1.IntrospectionServiceClient
	secret     string
}

type bearer struct{ secret string }

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.secret}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

func connect(d *daemon, secret string) (*api, error) {
	conn, err := grpc.NewClient("passthrough:///"+d.GRPC,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(bearer{secret}))
	if err != nil {
		return nil, err
	}
	return &api{
		d.HTTP, conn, patdv1.NewTokenServiceClient(conn), patdv1.NewUserServiceClient(conn),
		patdv1.NewAuditServiceClient(conn), patdv1.NewIntrospectionServiceClient(conn),
		secret,
	}, nil
}

// token is a personal access token.
type token struct{ user, name, id, secret string }

// mint makes a token with the scope "a". It reports whether the answer was that of an earlier call with the same key.
func (a *api) mint(ctx context.Context, user, name, key string) (tok token, replayed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var header metadata.MD
	m, err := a.tokens.CreateToken(
		ctx,
		&patdv1.CreateTokenRequest{User: user, Name: name, Scopes: []string{"a"}, RequestId: key},
		grpc.Header(&header),
	)
	return token{user, name, m.GetToken().GetTokenId(), m.GetSecret()}, len(header.Get("idempotency-replayed")) > 0, err
}

// rotate gives a token a new secret; the one before ends at once.
func (a *api) rotate(ctx context.Context, tok token) (secret string, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	r, err := a.tokens.RotateToken(
		ctx,
		&patdv1.RotateTokenRequest{User: tok.user, TokenId: tok.id, Grace: durationpb.New(0)},
	)
	return r.GetSecret(), err
}

func (a *api) revoke(ctx context.Context, tok token) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err := a.tokens.RevokeToken(ctx, &patdv1.RevokeTokenRequest{User: tok.user, TokenId: tok.id})
	return err
}

func (a *api) suspend(ctx context.Context, user string) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err := a.users.SuspendUser(ctx, &patdv1.SuspendUserRequest{User: user})
	return err
}

func (a *api) resume(ctx context.Context, user string) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err := a.users.ResumeUser(ctx, &patdv1.ResumeUserRequest{User: user})
	return err
}

// hold says what a user holds.
func (a *api) hold(ctx context.Context, user string, features ...string) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err := a.users.SetUserFeatures(ctx, &patdv1.SetUserFeaturesRequest{User: user, Features: features})
	return err
}

func (a *api) decide(ctx context.Context, secret string) (decision, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	got, err := a.introspect.Introspect(ctx, &patdv1.IntrospectRequest{Token: secret})
	return got.GetDecision(), err
}

// reason is the stable reason in an error; empty: the error is not the server's.
func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// isOutage reports whether a call failed for want of a replica or its database, and not by an answer.
func isOutage(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		return true
	default:
		return false
	}
}

// isUnknown reports whether a change that failed may have happened: the connection was lost, or the server does not
// know. A server that says that its store is unavailable says that nothing has happened.
func isUnknown(err error) bool { return isOutage(err) && reason(err) != "STORE_UNAVAILABLE" }

// get asks the REST address for a page, without credentials.
func (a *api) get(path string) (code int, body string, err error) {
	client := http.Client{Timeout: answerWithin}
	resp, err := client.Get(a.url + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// figure reads one of the metrics.
func (a *api) figure(t *testing.T, name string) string {
	t.Helper()
	_, body, err := a.get("/metrics")
	must(t, err)
	m := regexp.MustCompile(fmt.Sprintf(`(?m)^%s (\S+)$`, name)).FindStringSubmatch(body)
	if m == nil {
		t.Fatalf("no figure %s in\n%s", name, body)
	}
	return m[1]
}
