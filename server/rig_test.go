package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/patdtest"
	"patd/internal/servicetest"
	"patd/server"
	"patd/store"
	"patd/store/cache"
	"patd/store/storetest"
	"patd/tokens"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a real server on a real store, with a clock that the test moves and every line that was logged.
type rig struct {
	t      testing.TB
	srv    *server.Server
	svc    *tokens.Service
	keys   *tokens.Keyring
	store  *gate
	queue  tokens.WebhookQueue
	file   string // of the store
	faulty *storetest.Faulty
	logs   *logBuffer
	conn   *grpc.ClientConn
	client *http.Client
	idp    *idp
	admin  string // secret of a service with every permission
	// rotating is the id of a token whose rotation can be canceled; empty: there is none.
	rotating string
	delivery string       // of the webhook chat; empty: none was made
	stop     func() error // ends the server; what it returns is the test's affair

	mu   sync.Mutex
	at   time.Time
	step time.Duration // by which each reading moves the clock
}

const keyLine = servicetest.KeyLine

// newRig starts a server in which users of r.idp may sign in and nothing is limited. change may change its
// configuration.
func newRig(t testing.TB, change ...func(*server.Config)) *rig {
	t.Helper()
	return newRigOf(t, nil, change...)
}

// newRigOf starts a server on a source of features; nil is the built-in one.
func newRigOf(t testing.TB, source tokens.FeatureSource, change ...func(*server.Config)) *rig {
	t.Helper()
	return newRigOn(t, source, func(_ *store.Store, s tokens.Store) tokens.Store { return s }, change...)
}

// newRigs are a server that reads its store for each lookup, and one that answers from memory, as the command does.
func newRigs(t *testing.T, test func(*testing.T, *rig)) {
	t.Run("read", func(t *testing.T) { test(t, newRig(t)) })
	t.Run("remembered", func(t *testing.T) {
		var cached *cache.Cache
		test(t, newRigOn(t, nil, func(st *store.Store, behind tokens.Store) tokens.Store {
			cached = cache.New(st, cache.Options{Behind: behind})
			return cached
		}))
		if cached.Stats().Hits == 0 {
			t.Error("nothing was answered from memory")
		}
	})
}

// newRigOn starts a server whose lookups go to what on makes of the store.
func newRigOn(
	t testing.TB,
	source tokens.FeatureSource,
	on func(*store.Store, tokens.Store) tokens.Store,
	change ...func(*server.Config),
) *rig {
	t.Helper()
	r := &rig{t: t, logs: &logBuffer{}, at: time.Now()}
	r.idp = newIDP(t, r.now)
	p := patdtest.Start(t, servicetest.Options{
		Now:  r.now,
		Feed: true,
		Between: func(st *store.Store) tokens.Store {
			r.faulty = storetest.NewFaulty(st)
			r.store, r.queue = &gate{Store: on(st, r.faulty)}, st
			return r.store
		},
		Change: func(c *tokens.Config) {
			c.Features, c.Policy = source, tokens.Policy{AllowNever: true}
			c.SigningKeyDelay = tokens.DefaultSigningKeyDelay
			c.ReturnOrigins = []string{"https://app.example.com"}
		},
	}, func(made *servicetest.Made, c *server.Config) {
		r.svc, r.keys, r.file = made.Service, made.Keys, made.File
		c.SignIn, c.Reflection = r.idp.signIn(t, r.now), true
		c.Logger = slog.New(slog.NewJSONHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
		for _, f := range change {
			f(c)
		}
		if client := c.Page.Client; client != nil {
			client.Issuer, client.SignIn = r.idp.URL, r.idp.users
		}
	})
	r.srv, r.stop = p.Server, p.Stop
	var err error
	r.conn, err = grpc.NewClient(r.srv.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	r.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		must(t, r.conn.Close())
	})
	r.admin = r.service("admin", "admin")
	return r
}

// under is the same rig, for calls of another test.
func (r *rig) under(t testing.TB) *rig {
	return &rig{t: t, srv: r.srv, svc: r.svc, logs: r.logs, conn: r.conn, client: r.client, idp: r.idp, admin: r.admin}
}

func (r *rig) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.at
	r.at = at.Add(r.step)
	return at
}

// stepping moves the clock by so much with each reading of it, during do.
func (r *rig) stepping(step time.Duration, do func()) {
	set := func(to time.Duration) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.step = to
	}
	set(step)
	defer set(0)
	do()
}

func (r *rig) wait(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = r.at.Add(d)
}

// service makes a service and returns its secret.
func (r *rig) service(name string, permissions ...string) string {
	r.t.Helper()
	return (&servicetest.Made{Service: r.svc}).ServiceAccount(r.t, name, permissions...)
}

// features gives a user features.
func (r *rig) features(user string, names ...string) {
	r.t.Helper()
	_, err := r.svc.SetUserFeatures(context.Background(), tokens.Operator(), user, names)
	must(r.t, err)
}

// mint makes a token of a user that holds reports.read, which may rotate itself, and returns its id and secret.
func (r *rig) mint(user, name string) (id, secret string) {
	r.t.Helper()
	r.features(user, "reports.read")
	m, err := r.svc.Mint(
		context.Background(),
		tokens.Operator(),
		tokens.MintRequest{User: user, Name: name, Scopes: []string{"reports.read"}, SelfRotate: true},
	)
	must(r.t, err)
	return m.Token.ID.String(), m.Secret.Reveal()
}

// as is a context that carries a credential over gRPC.
func as(secret string) context.Context {
	if secret == "" {
		return context.Background()
	}
	return metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+secret)
}

// answerOf is what came back over REST.
type answerOf struct {
	code   int
	header http.Header
	body   string
}

// reason is the stable reason of an error, and field the first field that it names.
func (a answerOf) reason() (reason, field string) {
	var e struct {
		Error struct {
			Details []struct {
				Reason          string
				FieldViolations []struct{ Field, Reason string } `json:"field_violations"`
			}
		}
	}
	_ = json.Unmarshal([]byte(a.body), &e)
	for _, d := range e.Error.Details {
		if d.Reason != "" {
			reason = d.Reason
		}
		if len(d.FieldViolations) > 0 && field == "" {
			field = d.FieldViolations[0].Field
		}
	}
	return reason, field
}

// rest makes a REST call. Headers come as name, value, ….
func (r *rig) rest(method, path, secret, body string, headers ...string) answerOf {
	r.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, "http://"+r.srv.HTTPAddr()+path, reader)
	must(r.t, err)
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := r.client.Do(req)
	must(r.t, err)
	text, err := io.ReadAll(resp.Body)
	must(r.t, errors.Join(err, resp.Body.Close()))
	got := answerOf{resp.StatusCode, resp.Header, string(text)}
	conforms(r.t, method, path, got)
	return got
}

// invoke makes a call of one message over gRPC. Of a stream it waits for the first answer.
func (r *rig) invoke(
	ctx context.Context,
	m protoreflect.MethodDescriptor,
	req, resp proto.Message,
	opts ...grpc.CallOption,
) error {
	full := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	if !m.IsStreamingServer() {
		return r.conn.Invoke(ctx, full, req, resp, opts...)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := r.conn.NewStream(
		ctx,
		&grpc.StreamDesc{ServerStreams: true, ClientStreams: m.IsStreamingClient()},
		full,
	)
	if err != nil {
		return err
	}
	_ = stream.SendMsg(req) // RecvMsg says what is wrong
	_ = stream.CloseSend()
	err = stream.RecvMsg(resp)
	for _, o := range opts { // gRPC itself would fill them in when the stream has ended, which may be after this returns
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			*o.HeaderAddr, _ = stream.Header()
		case grpc.TrailerCallOption:
			if err != nil {
				*o.TrailerAddr = stream.Trailer()
			}
		}
	}
	return err
}

// grpcReason is the stable reason of a gRPC error, and the first field that it names.
func grpcReason(err error) (reason, field string) {
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		case *errdetails.BadRequest:
			field = d.GetFieldViolations()[0].GetField()
		}
	}
	return reason, field
}

// introspect returns the decision about a secret.
func (r *rig) introspect(secret string) patdv1.IntrospectResponse_Decision {
	r.t.Helper()
	resp, err := patdv1.NewIntrospectionServiceClient(r.conn).
		Introspect(as(r.admin), &patdv1.IntrospectRequest{Token: secret})
	must(r.t, err)
	return resp.GetDecision()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func grpcHeader(md *metadata.MD) grpc.CallOption { return grpc.Header(md) }
