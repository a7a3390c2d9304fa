package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/server"
)

// alone is a server that no other shares its store with.
func alone(c *server.Config) { c.Alone = true }

// settled waits until the server has run for so long that no verifier rests on one from before it.
func (r *rig) settled() {
	r.t.Helper()
	users := patdv1.NewUserServiceClient(r.conn)
	got, err := users.SuspendUser(
		as(r.admin),
		&patdv1.SuspendUserRequest{User: "settled", Wait: durationpb.New(9 * time.Second)},
	)
	must(r.t, err)
	if !got.GetUser().GetReceipt().GetRefusedEverywhere() {
		r.t.Fatalf("without a watch: %v", got)
	}
}

// revoked is what a call that waits came to.
type revoked struct {
	*patdv1.RevokeTokenResponse
	err  error
	took time.Duration
}

func (r *rig) revokeAndWait(ctx context.Context, id string, wait time.Duration) <-chan revoked {
	done := make(chan revoked, 1)
	go func() {
		began := time.Now()
		got, err := patdv1.NewTokenServiceClient(r.conn).
			RevokeToken(ctx, &patdv1.RevokeTokenRequest{User: "u1", TokenId: id, Wait: durationpb.New(wait)})
		done <- revoked{got, err, time.Since(began)}
	}()
	return done
}

// asksFor returns the first message of a watch that asks to be acknowledged.
func asksFor(t *testing.T, w watchStream) *patdv1.WatchInvalidationsResponse {
	t.Helper()
	for {
		if m := heard(t, w); m.GetAcknowledge() {
			return m
		}
	}
}

// TestAReceiptComesWhenTheLastWatcherAcknowledges has two watchers, one of which acknowledges later, and one that never
// does.
func TestAReceiptComesWhenTheLastWatcherAcknowledges(t *testing.T) {
	t.Parallel()
	r := newRig(t, alone)
	r.settled()
	in := patdv1.NewIntrospectionServiceClient(r.conn)
	other := r.service("other", "introspect")
	first, second := r.watch(0, ""), r.watch(0, "")
	ids := []string{heard(t, first).GetWatchId(), heard(t, second).GetWatchId()}
	if ids[0] == "" || ids[0] == ids[1] {
		t.Fatalf("the watches are %q", ids)
	}
	id, _ := r.mint("u1", "a")
	done := r.revokeAndWait(as(r.admin), id, 9*time.Second)
	acks := func(secret, watch string, at uint64) error {
		_, err := in.AcknowledgeInvalidations(
			as(secret),
			&patdv1.AcknowledgeInvalidationsRequest{WatchId: watch, Sequence: at},
		)
		return err
	}
	at := asksFor(t, first).GetSequence()
	must(t, acks(r.admin, ids[0], at))
	must(t, acks(other, ids[1], at)) // it is not its watch
	must(t, acks(r.admin, "another", at))
	if reason, field := grpcReason(
		acks(r.admin, ids[0], at+1000),
	); reason != "SEQUENCE_INVALID" ||
		field != "sequence" {
		t.Errorf("a position that was not sent: %q %q", reason, field)
	}
	at = asksFor(t, second).GetSequence()
	must(t, acks(r.admin, ids[1], at-1))
	select {
	case got := <-done:
		t.Fatalf("before the second has acknowledged: %v", got)
	case <-time.After(300 * time.Millisecond):
	}
	must(t, acks(r.admin, ids[1], at))
	got := <-done
	must(t, got.err)
	receipt := got.GetReceipt()
	if !receipt.GetRefusedEverywhere() || len(receipt.GetSilent()) > 0 || receipt.GetSince() == nil ||
		got.GetToken().GetState() != patdv1.Token_REVOKED {
		t.Errorf("the answer: %v", got)
	}

	// What is acknowledged stays so: the same call again has its receipt at once, also where nothing waits.
	again := <-r.revokeAndWait(as(r.admin), id, 0)
	must(t, again.err)
	if !again.GetReceipt().GetRefusedEverywhere() {
		t.Errorf("again: %v", again)
	}

	// Messages that no call waits for do not ask.
	quiet, _ := r.mint("u1", "b")
	_, err := patdv1.NewTokenServiceClient(r.conn).
		RevokeToken(as(r.admin), &patdv1.RevokeTokenRequest{User: "u1", TokenId: quiet})
	must(t, err)
	for {
		m := heard(t, first)
		if m.GetAcknowledge() || m.GetWatchId() != "" {
			t.Errorf("a message that nobody waits for: %v", m)
		}
		if slices.Contains(m.GetTokenIds(), quiet) {
			break
		}
	}
}

// TestASilentWatcherIsSafeByItsOwnRule has watchers that never acknowledge, as those of earlier versions: one that goes
// on, and one whose connection has ended.
func TestASilentWatcherIsSafeByItsOwnRule(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := newRig(t, alone)
	r.settled()
	w := r.watch(0, "")
	heard(t, w)
	ended := r.sentEvents(r.service("gone", "introspect"))
	ended.next()
	id, _ := r.mint("u1", "a")
	must(t, ended.resp.Body.Close())
	got := <-r.revokeAndWait(as(r.admin), id, 200*time.Millisecond)
	must(t, got.err)
	if receipt := got.GetReceipt(); receipt.GetRefusedEverywhere() || receipt.GetSince() != nil ||
		!slices.Equal(receipt.GetSilent(), []string{"service:admin", "service:gone"}) {
		t.Errorf("at once: %v", got)
	}
	if got.GetToken().GetState() != patdv1.Token_REVOKED {
		t.Errorf("the change is not made: %v", got)
	}
	got = <-r.revokeAndWait(as(r.admin), id, 9*time.Second)
	must(t, got.err)
	if !got.GetReceipt().GetRefusedEverywhere() {
		t.Errorf("after the bound: %v", got)
	}
	if got.took < 2*time.Second {
		t.Errorf("a watcher that does not acknowledge was safe after %v", got.took)
	}
}

// TestOtherServersMayBeSilent has a server that may share its store.
func TestOtherServersMayBeSilent(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := newRig(t)
	id, _ := r.mint("u1", "a")
	got := <-r.revokeAndWait(as(r.admin), id, 5*time.Second)
	must(t, got.err)
	if receipt := got.GetReceipt(); receipt.GetRefusedEverywhere() ||
		!slices.Equal(receipt.GetSilent(), []string{"servers"}) {
		t.Errorf("other servers are not known: %v", got)
	}
}

// TestReceiptsOverREST waits over HTTP, with a watch by server-sent events.
func TestReceiptsOverREST(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := newRig(t, alone)
	r.settled()
	reader := r.service("reader", "introspect")
	s := r.sentEvents(reader)
	type flags struct {
		WatchID     string `json:"watch_id"`
		Acknowledge bool
	}
	read := func(e event) (f flags) {
		must(t, json.Unmarshal([]byte(e.data), &f))
		return f
	}
	first, _ := s.next()
	watch := read(first).WatchID
	id, _ := r.mint("u1", "a")
	r.mint("u1", "b")
	for _, c := range []struct{ path, body, at string }{
		{"/v1/users/u1/tokens/" + id + ":revoke", `{"wait":"9s"}`, "receipt"},
		{"/v1/users/u1/tokens:revoke", `{"wait":"9s"}`, "receipt"},
		{"/v1/users/u1:suspend", `{"wait":"9s"}`, "receipt"},
	} {
		done := make(chan answerOf, 1)
		go func() { done <- r.rest(http.MethodPost, c.path, r.admin, c.body) }()
		asking := s.until(func(e event) bool { return read(e).Acknowledge })
		acked := r.rest(
			http.MethodPost,
			"/v1/invalidations:acknowledge",
			reader,
			fmt.Sprintf(`{"watch_id":%q,"sequence":%q}`, watch, asking.news.Sequence),
		)
		if acked.code != http.StatusOK {
			t.Errorf("acknowledged: %d %s", acked.code, acked.body)
		}
		got := <-done
		var answer map[string]json.RawMessage
		must(t, json.Unmarshal([]byte(got.body), &answer))
		var receipt struct {
			Everywhere bool `json:"refused_everywhere"`
			Since      time.Time
			Silent     []string
		}
		must(t, json.Unmarshal(answer[c.at], &receipt))
		if got.code != http.StatusOK || !receipt.Everywhere || receipt.Since.IsZero() || receipt.Silent == nil ||
			len(receipt.Silent) > 0 {
			t.Errorf("%s: %d %s", c.path, got.code, got.body)
		}
	}
}

// TestWhoMayWait has a user, and waits that are none. Nothing is changed by them.
func TestWhoMayWait(t *testing.T) {
	t.Parallel()
	r := newRig(t, alone)
	id, secret := r.mint("u1", "a")
	path := "/v1/users/u1/tokens/" + id + ":revoke"
	for _, c := range []struct{ credential, wait, reason string }{
		{r.idp.jwt(t, "u1"), "1s", "WAIT_NOT_ALLOWED"},
		{r.admin, "31s", "WAIT_INVALID"},
		{r.admin, "-1s", "WAIT_INVALID"},
	} {
		got := r.rest(http.MethodPost, path, c.credential, `{"wait":"`+c.wait+`"}`)
		if reason, _ := got.reason(); reason != c.reason {
			t.Errorf("%s: %d %s, want %s", c.wait, got.code, got.body, c.reason)
		}
	}
	if d := r.introspect(secret); d != patdv1.IntrospectResponse_ALLOW {
		t.Fatalf("a call that was refused has revoked: %s", d)
	}
}

// TestACallerWhoGoesAwayHasRevoked ends a call that waits, by its caller and by its deadline.
func TestACallerWhoGoesAwayHasRevoked(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	r := newRig(t, alone)
	r.settled()
	w := r.watch(0, "")
	heard(t, w)
	id, secret := r.mint("u1", "a")
	ctx, cancel := context.WithCancel(as(r.admin))
	done := r.revokeAndWait(ctx, id, 9*time.Second)
	asksFor(t, w)
	cancel()
	if got := <-done; got.err == nil {
		t.Errorf("a call that was canceled: %v", got)
	}
	if d := r.introspect(secret); d != patdv1.IntrospectResponse_REVOKED {
		t.Errorf("after its call was canceled, the token is %s", d)
	}
	id, _ = r.mint("u1", "b")
	ctx, cancel = context.WithTimeout(as(r.admin), 1200*time.Millisecond)
	defer cancel()
	got := <-r.revokeAndWait(ctx, id, 9*time.Second)
	if got.err != nil || got.GetReceipt().GetRefusedEverywhere() || len(got.GetReceipt().GetSilent()) == 0 {
		t.Errorf("a call with a deadline of its own: %v, want who is silent", got)
	}
}
