package server_test

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/waittest"
	"patd/store/storetest"
	"patd/tokens"
)

func (r *rig) endService(name string) {
	r.t.Helper()
	_, err := r.svc.RevokeService(context.Background(), tokens.Operator(), name, "")
	must(r.t, err)
}

func TestAnOpenStreamAnswersNothingAfterItsServiceIsRevoked(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	newRigs(t, testAnOpenStreamAnswersNothingAfterItsServiceIsRevoked)
}

// testAnOpenStreamAnswersNothingAfterItsServiceIsRevoked has streams ask without a pause, one question after the other,
// and others with many under way.
func testAnOpenStreamAnswersNothingAfterItsServiceIsRevoked(t *testing.T, r *rig) {
	_, secret := r.mint("u1", "a")
	gw := r.service("gw", "introspect")
	var gone atomic.Bool
	var answers, late atomic.Int64
	var ends sync.WaitGroup
	for _, underWay := range []int{1, 1, 16} {
		s := r.open(gw)
		ends.Go(func() {
			askedLate := map[uint64]bool{}
			n := uint64(0)
			for range underWay {
				n++
				ask(t, s, n, secret)
			}
			for {
				got, err := s.Recv()
				if err != nil {
					if status.Code(err) != codes.Unauthenticated {
						t.Errorf("the stream ended with %v", err)
					}
					return
				}
				if got.GetResponse() != nil {
					answers.Add(1)
					if askedLate[got.GetId()] {
						late.Add(1)
					}
				} else if got.GetError().GetReason() != "CREDENTIAL_INVALID" {
					t.Errorf("an answer: %v", got)
				}
				n++
				if gone.Load() {
					askedLate[n] = true
				}
				if s.Send(
					&patdv1.IntrospectStreamRequest{Id: n, Request: &patdv1.IntrospectRequest{Token: secret}},
				) != nil {
					continue // Recv tells why
				}
			}
		})
	}
	waittest.Until(t, "many answers", func() bool { return answers.Load() > 500 })
	r.endService("gw")
	gone.Store(true)
	ends.Wait()
	if n := late.Load(); n > 0 {
		t.Errorf("%d questions were answered that were asked after the revocation", n)
	}
}

// TestAnswersThatHaveToWaitForTheirSendingAreNoneAfterARevocation has a client that does not read: what the connection
// does not take any more waits in the server, and the service is revoked meanwhile.
func TestAnswersThatHaveToWaitForTheirSendingAreNoneAfterARevocation(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	r := newRig(t)
	_, secret := r.mint("u1", "a")
	gw := r.service("gw", "introspect")
	s := r.open(gw)
	const most = 20_000
	var sent atomic.Int64
	go func() {
		for n := range uint64(most) {
			if s.Send(
				&patdv1.IntrospectStreamRequest{Id: n, Request: &patdv1.IntrospectRequest{Token: secret}},
			) != nil {
				return
			}
			sent.Add(1)
		}
	}()
	// On a busy machine both sides may pause for a while, and go on.
	before, decided, still := int64(-1), 0, 0
	waittest.Until(t, "no more is taken", func() bool {
		at, calls := sent.Load(), r.faulty.Calls()[storetest.OpLookup]
		if still++; at <= 100 || at != before || calls != decided {
			still = 0
		}
		before, decided = at, calls
		<-time.After(50 * time.Millisecond) // for what must not come about
		return still == 10
	})
	r.endService("gw")
	got, refused := 0, 0
	for {
		a, err := s.Recv()
		if err != nil {
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("the stream ended with %v", err)
			}
			break
		}
		if a.GetResponse() != nil {
			got++
		} else {
			refused++
		}
	}
	if got >= decided {
		t.Errorf(
			"%d answers came, of %d that were decided before the revocation and not all handed to the connection",
			got,
			decided,
		)
	}
	t.Logf("%d sent, %d decided, %d answered, %d refused", before, decided, got, refused)
}

func TestAWatchTellsNothingAfterItsServiceIsRevoked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gw := r.service("gw", "introspect")
	var ids []string
	for _, name := range []string{"a", "b", "c"} {
		id, _ := r.mint("u1", name)
		ids = append(ids, id)
	}
	w, err := patdv1.NewIntrospectionServiceClient(r.conn).
		WatchInvalidations(as(gw), &patdv1.WatchInvalidationsRequest{})
	must(t, err)
	heard(t, w)
	// The feed may still be telling of what was done before: it has no more of that once it tells of a last token.
	last, _ := r.mint("u1", "last")
	must(t, r.revoke("u1", last))
	waittest.Until(t, "it is told of the last token", func() bool {
		return slices.Contains(heard(t, w).GetTokenIds(), last)
	})
	r.endService("gw")
	for _, id := range ids {
		must(t, r.revoke("u1", id))
	}
	for {
		m, err := w.Recv()
		if err != nil {
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("the watch ended with %v", err)
			}
			return
		}
		for _, id := range m.GetTokenIds() {
			if slices.Contains(ids, id) {
				t.Errorf("it is told that %s ended", id)
			}
		}
	}
}

// TestNoCallUnderWayIsAnsweredAfterItsServiceIsRevoked holds each call while it waits for the store.
func TestNoCallUnderWayIsAnsweredAfterItsServiceIsRevoked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, secret := r.mint("u1", "a")
	in := patdv1.NewIntrospectionServiceClient(r.conn)
	service, n := "", 0
	q := &patdv1.IntrospectRequest{Token: secret}
	overREST := func(got answerOf) error {
		if got.code == http.StatusUnauthorized {
			return status.Error(codes.Unauthenticated, "")
		}
		return status.Errorf(codes.Unknown, "%d %s", got.code, got.body)
	}
	for name, call := range map[string]func(gw string) error{
		"Introspect":      func(gw string) error { _, err := in.Introspect(as(gw), q); return err },
		"BatchIntrospect": func(gw string) error { return batchOf(in, gw, q) },
		"IntrospectStream": func(gw string) error {
			s := r.open(gw)
			ask(t, s, 1, secret)
			got, err := s.Recv()
			if e := got.GetError(); err == nil && e != nil {
				return status.Error(codes.Code(e.GetCode()), e.GetMessage())
			}
			return err
		},
		"ReportUses": func(gw string) error {
			_, err := in.ReportUses(as(gw), &patdv1.ReportUsesRequest{Uses: []*patdv1.ReportUsesRequest_Use{{TokenId: id, Time: timestamppb.New(r.now())}}})
			return err
		},
		"Check": func(gw string) error {
			resp, err := authv3.NewAuthorizationClient(r.conn).Check(as(gw), envoy{}.request(routed{headers: headers(secret)}))
			if err == nil && resp.GetStatus().GetCode() != int32(codes.OK) {
				return status.Error(codes.Unauthenticated, "") // any denial will do
			}
			return err
		},
		"POST /v1/introspect": func(gw string) error {
			return overREST(r.rest("POST", "/v1/introspect", gw, `{"token":"`+secret+`"}`))
		},
		"POST /v1/introspect:batch": func(gw string) error {
			return overREST(r.rest("POST", "/v1/introspect:batch", gw, `{"requests":[{"token":"`+secret+`"}]}`))
		},
		"POST /oauth2/introspect": func(gw string) error {
			return overREST(r.oauth("/oauth2/introspect", formOf("token", secret), basic(service, gw)...).answerOf)
		},
	} {
		n++
		service = "gw-" + strconv.Itoa(n)
		gw := r.service(service, "introspect")
		if err := call(gw); status.Code(err) == codes.Unauthenticated {
			t.Fatalf("%s before: %v", name, err)
		}
		held := r.faulty.Hold(storetest.OpLookup)
		got := make(chan error, 1)
		go func() { got <- call(gw) }()
		<-held.Reached
		r.endService(service)
		held.Release()
		if err := <-got; status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func batchOf(in patdv1.IntrospectionServiceClient, gw string, q *patdv1.IntrospectRequest) error {
	_, err := in.BatchIntrospect(as(gw), &patdv1.BatchIntrospectRequest{Requests: []*patdv1.IntrospectRequest{q, q}})
	return err
}

// TestAMessageThatComesAfterItsCallersRevocationIsNotAnswered sends the headers of a call, and its message once the
// service is revoked.
func TestAMessageThatComesAfterItsCallersRevocationIsNotAnswered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, secret := r.mint("u1", "a")
	q := &patdv1.IntrospectRequest{Token: secret}
	n := 0
	for method, c := range map[string]struct{ req, resp proto.Message }{
		patdv1.IntrospectionService_Introspect_FullMethodName:      {q, &patdv1.IntrospectResponse{}},
		patdv1.IntrospectionService_BatchIntrospect_FullMethodName: {&patdv1.BatchIntrospectRequest{Requests: []*patdv1.IntrospectRequest{q}}, &patdv1.BatchIntrospectResponse{}},
		patdv1.TokenService_GetToken_FullMethodName:                {&patdv1.GetTokenRequest{User: "u1", TokenId: id}, &patdv1.GetTokenResponse{}},
		patdv1.TokenService_CreateToken_FullMethodName:             {&patdv1.CreateTokenRequest{User: "u1", Name: "new", Scopes: []string{"reports.read"}}, &patdv1.CreateTokenResponse{}},
		patdv1.AuditService_ListEvents_FullMethodName:              {&patdv1.ListEventsRequest{}, &patdv1.ListEventsResponse{}},
	} {
		n++
		service := "gw-" + strconv.Itoa(n)
		gw := r.service(service, "admin")
		ctx, cancel := context.WithCancel(as(gw))
		before := r.faulty.Calls()[storetest.OpLookupService]
		s, err := r.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, method)
		must(t, err)
		waittest.Until(
			t,
			"the caller is known",
			func() bool { return r.faulty.Calls()[storetest.OpLookupService] > before },
		)
		r.endService(service)
		must(t, s.SendMsg(c.req))
		must(t, s.CloseSend())
		if err := s.RecvMsg(c.resp); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", method[strings.LastIndexByte(method, '/'):], err)
		}
		cancel()
	}
}
