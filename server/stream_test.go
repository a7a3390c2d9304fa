package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/waittest"
	"patd/server"
	"patd/store"
	"patd/tokens"
)

type introspectStream = grpc.BidiStreamingClient[patdv1.IntrospectStreamRequest, patdv1.IntrospectStreamResponse]

// open opens a stream with a credential, until the test ends.
func (r *rig) open(secret string) introspectStream {
	r.t.Helper()
	ctx, cancel := context.WithCancel(as(secret))
	r.t.Cleanup(cancel)
	s, err := patdv1.NewIntrospectionServiceClient(r.conn).IntrospectStream(ctx)
	must(r.t, err)
	return s
}

func ask(t testing.TB, s introspectStream, id uint64, secret string) {
	t.Helper()
	must(t, s.Send(&patdv1.IntrospectStreamRequest{Id: id, Request: &patdv1.IntrospectRequest{Token: secret}}))
}

func answered(t testing.TB, s introspectStream) *patdv1.IntrospectStreamResponse {
	t.Helper()
	resp, err := s.Recv()
	must(t, err)
	return resp
}

func TestStreamAnswersEachRequestUnderItsID(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, good := r.mint("u1", "a")
	revokedID, revoked := r.mint("u1", "b")
	_, err := r.svc.Revoke(context.Background(), tokens.Operator(), "u1", revokedID, "")
	must(t, err)
	s := r.open(r.service("gw", "introspect"))
	want := map[uint64]patdv1.IntrospectResponse_Decision{}
	for i := range uint64(300) {
		id := i * 0x9e3779b97f4a7c15
		secret, decision := "garbage", patdv1.IntrospectResponse_NOT_FOUND
		switch i % 3 {
		case 0:
			secret, decision = good, patdv1.IntrospectResponse_ALLOW
		case 1:
			secret, decision = revoked, patdv1.IntrospectResponse_REVOKED
		}
		want[id] = decision
		ask(t, s, id, secret)
	}
	must(t, s.CloseSend())
	for range 300 {
		resp := answered(t, s)
		if d, ok := want[resp.GetId()]; !ok || resp.GetResponse().GetDecision() != d {
			t.Errorf("id %d: %v, want %s", resp.GetId(), resp, d)
		}
		delete(want, resp.GetId())
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) || len(want) > 0 {
		t.Errorf("at the end: %v, %d not answered", err, len(want))
	}
	wantMetric(t, r, `patd_stream_answers_total{code="OK"} 300`)
}

func TestStreamAnswersOvertakeOneThatWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.mint("u1", "a")
	s := r.open(r.admin)
	release := r.store.parking()
	ask(t, s, 1, secret)
	for id := range uint64(50) {
		ask(t, s, 100+id, "garbage")
		if got := answered(t, s).GetId(); got != 100+id {
			t.Fatalf("answer %d came instead of %d", got, 100+id)
		}
	}
	release()
	if got := answered(t, s); got.GetId() != 1 || got.GetResponse().GetDecision() != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("the one that waited: %v", got)
	}
}

func TestStreamTellsWhatFailedPerRequestAndGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.mint("u1", "a")
	s := r.open(r.admin)
	must(
		t,
		s.Send(
			&patdv1.IntrospectStreamRequest{
				Id:      1,
				Request: &patdv1.IntrospectRequest{Token: secret, ClientIp: "nowhere"},
			},
		),
	)
	if e := answered(
		t,
		s,
	).GetError(); e.GetReason() != "CLIENT_IP_INVALID" ||
		codes.Code(e.GetCode()) != codes.InvalidArgument {
		t.Errorf("a bad address: %v", e)
	}
	r.store.set(func(op string) error {
		if op == "Lookup" {
			return tokens.StoreUnavailable(op, errors.New("injected outage"))
		}
		return nil
	})
	ask(t, s, 2, secret)
	if got := answered(
		t,
		s,
	); got.GetId() != 2 || got.GetError().GetReason() != "STORE_UNAVAILABLE" ||
		strings.Contains(got.GetError().GetMessage(), "injected") {
		t.Errorf("an outage: %v", got)
	}
	r.store.set(func(op string) error {
		if op == "Lookup" {
			panic("holding " + secret)
		}
		return nil
	})
	ask(t, s, 3, secret)
	if got := answered(t, s); got.GetId() != 3 || codes.Code(got.GetError().GetCode()) != codes.Internal {
		t.Errorf("a panic: %v", got)
	}
	r.store.set(nil)
	must(
		t,
		s.Send(
			&patdv1.IntrospectStreamRequest{
				Id:      4,
				Request: &patdv1.IntrospectRequest{Token: strings.Repeat("x", 1<<20)},
			},
		),
	)
	if got := answered(t, s); got.GetError().GetReason() != "BODY_TOO_LARGE" {
		t.Errorf("a large message: %v", got)
	}
	must(t, s.Send(&patdv1.IntrospectStreamRequest{Id: 5}))
	if got := answered(t, s); got.GetResponse().GetDecision() != patdv1.IntrospectResponse_NOT_FOUND {
		t.Errorf("an empty request: %v", got)
	}
	ask(t, s, 6, secret)
	if got := answered(t, s); got.GetResponse().GetDecision() != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("afterwards: %v", got)
	}
	if strings.Contains(r.logs.String(), secret) || !strings.Contains(r.logs.String(), "injected outage") {
		t.Error("the log holds the secret, or not the cause")
	}
}

// TestStreamReadsNoMoreThanItMayOwe has nobody answered, and counts how many requests reach the store.
func TestStreamReadsNoMoreThanItMayOwe(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *server.Config) { c.RequestTimeout = time.Minute })
	_, secret := r.mint("u1", "a")
	s := r.open(r.admin)
	var begun atomic.Int64
	r.store.set(func(op string) error {
		if op == "Lookup" {
			begun.Add(1)
		}
		return nil
	})
	release := r.store.parking()
	const most, more = 1024, 100
	for id := range uint64(most + more) {
		ask(t, s, id, secret)
	}
	waittest.Until(t, "1024 wait", func() bool { return begun.Load() >= most })
	<-time.After(200 * time.Millisecond) // for what must not come about
	if n := begun.Load(); n != most {
		t.Errorf("%d requests are under way", n)
	}
	release()
	must(t, s.CloseSend())
	seen := map[uint64]bool{}
	for {
		resp, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		seen[resp.GetId()] = true
	}
	if len(seen) != most+more {
		t.Errorf("%d of %d were answered", len(seen), most+more)
	}
}

func TestRevokedServiceLosesItsStreams(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.mint("u1", "a")
	gw := r.service("gw", "introspect")
	s := r.open(gw)
	ask(t, s, 1, secret)
	answered(t, s)
	w, err := patdv1.NewIntrospectionServiceClient(r.conn).
		WatchInvalidations(as(gw), &patdv1.WatchInvalidationsRequest{})
	must(t, err)
	_, err = w.Recv()
	must(t, err)
	_, err = r.svc.RevokeService(context.Background(), tokens.Operator(), "gw", "")
	must(t, err)
	if _, err := s.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the stream ended with %v", err)
	}
	for err == nil {
		_, err = w.Recv()
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("the watch ended with %v", err)
	}
}

// narrowed is a store that, once it is told to, finds services without their permissions.
type narrowed struct {
	tokens.Store
	now atomic.Bool
}

func (n *narrowed) LookupService(ctx context.Context, id tokens.ID) (tokens.ServiceCredential, error) {
	found, err := n.Store.LookupService(ctx, id)
	if n.now.Load() {
		found.Service.Permissions = 0
	}
	return found, err
}

func TestStreamsEndWithThePermissionThatTheirServiceLacksLater(t *testing.T) {
	t.Parallel()
	var behind *narrowed
	r := newRigOn(t, nil, func(_ *store.Store, s tokens.Store) tokens.Store {
		behind = &narrowed{Store: s}
		return behind
	})
	s := r.open(r.service("gw", "introspect"))
	_, secret := r.mint("u1", "a")
	ask(t, s, 1, secret)
	answered(t, s)
	behind.now.Store(true)
	_, err := s.Recv()
	st := status.Convert(err)
	if st.Code() != codes.PermissionDenied {
		t.Fatalf("the stream ended with %v", err)
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetMetadata()["permission"] == "introspect" {
			return
		}
	}
	t.Errorf("the refusal names no permission: %v", st.Details())
}

func TestStreamsEndWithTheServerAfterWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.mint("u1", "a")
	s, idle := r.open(r.admin), r.open(r.admin)
	ask(t, idle, 1, "garbage")
	answered(t, idle)
	w, err := patdv1.NewIntrospectionServiceClient(r.conn).
		WatchInvalidations(as(r.admin), &patdv1.WatchInvalidationsRequest{})
	must(t, err)
	_, err = w.Recv()
	must(t, err)
	entered, release := make(chan struct{}), make(chan struct{})
	r.store.set(func(op string) error {
		if op == "Lookup" {
			close(entered)
			<-release
		}
		return nil
	})
	ask(t, s, 7, secret)
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	if _, err := idle.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("an idle stream ended with %v", err)
	}
	for err == nil {
		_, err = w.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the watch ended with %v", err)
	}
	close(release)
	if got := answered(t, s); got.GetId() != 7 || got.GetResponse().GetDecision() != patdv1.IntrospectResponse_ALLOW {
		t.Errorf("what was under way was answered %v", got)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
	must(t, <-stopped)
	if strings.Contains(r.logs.String(), "cut off") {
		t.Error("something had to be cut off")
	}
}

// TestStreamOfManyAtOnce has many streams ask for tokens that are revoked meanwhile, and end in all ways.
func TestStreamOfManyAtOnce(t *testing.T) { newRigs(t, testStreamOfManyAtOnce) }

func testStreamOfManyAtOnce(t *testing.T, r *rig) {
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			id, secret := r.mint(fmt.Sprint("u", n), "a")
			ctx, cancel := context.WithCancel(as(r.admin))
			defer cancel()
			s, err := patdv1.NewIntrospectionServiceClient(r.conn).IntrospectStream(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			var revokedAt atomic.Uint64 // requests from this one on were sent after the revocation was answered
			revokedAt.Store(math.MaxUint64)
			wg.Go(func() {
				for i := range uint64(200) {
					if i == 100 {
						if _, err := r.svc.Revoke(
							context.Background(),
							tokens.Operator(),
							fmt.Sprint("u", n),
							id,
							"",
						); err != nil {
							t.Error(err)
						}
						revokedAt.Store(i)
					}
					_ = s.Send(
						&patdv1.IntrospectStreamRequest{Id: i, Request: &patdv1.IntrospectRequest{Token: secret}},
					)
				}
				if n%2 == 0 {
					_ = s.CloseSend()
				}
			})
			for range 200 {
				resp, err := s.Recv()
				if err != nil {
					t.Error(err)
					return
				}
				if resp.GetId() >= revokedAt.Load() &&
					resp.GetResponse().GetDecision() != patdv1.IntrospectResponse_REVOKED {
					t.Errorf("after the revocation: %v", resp)
				}
			}
		})
	}
	wg.Wait()
}
