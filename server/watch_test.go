package server_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/tokens"
)

type watchStream = grpc.ServerStreamingClient[patdv1.WatchInvalidationsResponse]

func (r *rig) watch(after uint64, history string) watchStream {
	r.t.Helper()
	ctx, cancel := context.WithCancel(as(r.admin))
	r.t.Cleanup(cancel)
	w, err := patdv1.NewIntrospectionServiceClient(r.conn).
		WatchInvalidations(ctx, &patdv1.WatchInvalidationsRequest{After: after, History: history})
	must(r.t, err)
	return w
}

func heard(t testing.TB, w watchStream) *patdv1.WatchInvalidationsResponse {
	t.Helper()
	m, err := w.Recv()
	must(t, err)
	return m
}

func TestWatchTellsWhatIsRevokedAndBeats(t *testing.T) {
	r := newRig(t)
	id, _ := r.mint("u1", "a")
	asked := time.Now()
	w := r.watch(0, "")
	first := heard(t, w)
	if !first.GetStartOver() || first.GetHistory() == "" {
		t.Errorf("the first message: %v", first)
	}
	for beats := 0; beats < 2; { // the feed may still be telling of what was done before
		beat := heard(t, w)
		if beat.GetStartOver() || beat.GetSequence() < first.GetSequence() {
			t.Errorf("a heartbeat: %v", beat)
		}
		if len(beat.GetTokenIds())+len(beat.GetUsers()) == 0 {
			beats, first = beats+1, beat
		}
		// A second must have passed for the server before each of them, and no more than for us.
		if age := time.Since(
			asked,
		) - time.Duration(
			beat.GetElapsedMs(),
		)*time.Millisecond; beat.GetElapsedMs() < uint32(beats)*900 ||
			age < 0 {
			t.Errorf("heartbeat %d has an age of %v: %v", beats, age, beat)
		}
	}
	_, err := r.svc.Revoke(context.Background(), tokens.Operator(), "u1", id, "")
	must(t, err)
	_, err = r.svc.SuspendUser(context.Background(), tokens.Operator(), "u1", "")
	must(t, err)
	var ids, users []string
	var last *patdv1.WatchInvalidationsResponse
	for len(ids) == 0 || len(users) == 0 {
		last = heard(t, w)
		ids, users = append(ids, last.GetTokenIds()...), append(users, last.GetUsers()...)
	}
	if !slices.Contains(ids, id) || !slices.Contains(users, "u1") {
		t.Errorf("told %q %q", ids, users)
	}

	resumed := heard(t, r.watch(first.GetSequence(), first.GetHistory()))
	if resumed.GetStartOver() || !slices.Contains(resumed.GetTokenIds(), id) ||
		resumed.GetSequence() < last.GetSequence() {
		t.Errorf("resumed: %v", resumed)
	}
	if other := heard(t, r.watch(first.GetSequence(), "another")); !other.GetStartOver() {
		t.Errorf("of another history: %v", other)
	}
}

// TestAWatcherThatDoesNotReadIsCutOff has a watcher read nothing while more is told than the transport holds for it.
func TestAWatcherThatDoesNotReadIsCutOff(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	r := newRig(t)
	conn, err := grpc.NewClient(
		r.srv.GRPCAddr(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(65535),
	)
	must(t, err)
	defer conn.Close()
	w, err := patdv1.NewIntrospectionServiceClient(conn).
		WatchInvalidations(as(r.admin), &patdv1.WatchInvalidationsRequest{})
	must(t, err)
	heard(t, w)
	ended := func() bool {
		return len(r.logs.find(map[string]any{"method": "patd.v1.IntrospectionService/WatchInvalidations"})) > 0
	}
	long := strings.Repeat("x", 240)
	deadline := time.Now().Add(2 * time.Minute)
	for n := 0; !ended(); n++ {
		if time.Now().After(deadline) {
			t.Fatal("it was not cut off")
		}
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				_, err := r.svc.SetUserFeatures(
					context.Background(),
					tokens.Operator(),
					fmt.Sprint(long, n%20*64+i),
					[]string{fmt.Sprint("f", n)},
				)
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	for err == nil {
		_, err = w.Recv()
	}
	if reason, _ := grpcReason(err); reason != "WATCHER_TOO_SLOW" {
		t.Errorf("it was told %v", err)
	}
}

// TestThousandsOfWatchersHearOfARevocation holds 2000 streams; that nothing is left of them is checked at the end of
// all tests.
func TestThousandsOfWatchersHearOfARevocation(t *testing.T) {
	longtest.Slow(t)
	r := newRig(t)
	id, _ := r.mint("u1", "a")
	const watchers, conns = 2000, 4
	var begun, heard sync.WaitGroup
	begun.Add(watchers)
	for range conns {
		conn, err := grpc.NewClient(r.srv.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		must(t, err)
		defer conn.Close()
		client := patdv1.NewIntrospectionServiceClient(conn)
		for range watchers / conns {
			heard.Go(func() {
				begin := sync.OnceFunc(begun.Done)
				defer begin()
				w, err := client.WatchInvalidations(as(r.admin), &patdv1.WatchInvalidationsRequest{})
				for err == nil {
					var m *patdv1.WatchInvalidationsResponse
					m, err = w.Recv()
					begin()
					if slices.Contains(m.GetTokenIds(), id) {
						return
					}
				}
				t.Error(err)
			})
		}
	}
	begun.Wait()
	start := time.Now()
	_, err := r.svc.Revoke(context.Background(), tokens.Operator(), "u1", id, "")
	must(t, err)
	heard.Wait()
	t.Logf("%d watchers heard within %s", watchers, time.Since(start))
}

func TestReportedUsesCount(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, _ := r.mint("u1", "a")
	client := patdv1.NewIntrospectionServiceClient(r.conn)
	report := func(uses ...*patdv1.ReportUsesRequest_Use) error {
		_, err := client.ReportUses(
			as(r.service(fmt.Sprint("gw", time.Now().UnixNano()), "introspect")),
			&patdv1.ReportUsesRequest{Uses: uses},
		)
		return err
	}
	r.wait(10 * time.Minute)
	at := r.now().Add(-5 * time.Minute).UTC().Truncate(time.Microsecond)
	must(t, report(
		&patdv1.ReportUsesRequest_Use{TokenId: id, Time: timestamppb.New(at), ClientIp: "192.0.2.7"},
		&patdv1.ReportUsesRequest_Use{TokenId: "15ODq7pq8Hy", Time: timestamppb.New(at)},
	))
	if got := r.store.noted(id); !got.Time.Equal(at) || got.IP.String() != "192.0.2.7" {
		t.Errorf("last used %v", got)
	}
	if got := r.store.noted("15ODq7pq8Hy"); !got.Time.IsZero() {
		t.Errorf("an unknown token was used: %v", got)
	}
	r.wait(2 * time.Hour)
	must(t, report(&patdv1.ReportUsesRequest_Use{TokenId: id, Time: timestamppb.New(r.now().Add(-61 * time.Minute))}))
	if got := r.store.noted(id); !got.Time.Equal(at) {
		t.Errorf("an old use moved it to %v", got)
	}
	must(t, report(&patdv1.ReportUsesRequest_Use{TokenId: id, Time: timestamppb.New(r.now().Add(time.Hour))}))
	if got := r.store.noted(id); got.Time.After(r.now()) || !got.Time.After(at) {
		t.Errorf("a use in the future moved it to %v", got)
	}
	was := r.store.noted(id)
	r.wait(time.Minute)
	good := &patdv1.ReportUsesRequest_Use{TokenId: id, Time: timestamppb.New(r.now())}
	for reason, bad := range map[string]*patdv1.ReportUsesRequest_Use{
		"TOKEN_ID_INVALID":  {TokenId: "x", Time: timestamppb.New(at)},
		"TIME_INVALID":      {TokenId: id},
		"CLIENT_IP_INVALID": {TokenId: id, Time: timestamppb.New(at), ClientIp: "x"},
	} {
		err := report(good, bad)
		if got, field := grpcReason(
			err,
		); got != reason || !strings.HasPrefix(field, "uses[1].") ||
			status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", reason, err)
		}
	}
	many := make([]*patdv1.ReportUsesRequest_Use, 1001)
	for i := range many {
		many[i] = good
	}
	if reason, _ := grpcReason(report(many...)); reason != "BATCH_TOO_LARGE" {
		t.Errorf("1001 uses: %q", reason)
	}
	if got := r.store.noted(id); got != was {
		t.Errorf("a refused report moved it to %v", got)
	}
}
