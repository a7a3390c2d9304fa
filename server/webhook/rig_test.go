package webhook_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"patd/internal/proctest"
	"patd/internal/servicetest"
	"patd/server/webhook"
	"patd/store"
	"patd/tokens"
	"patd/tokens/secret"
)

// rig is a store with a service, and engines on it that send to functions. It is used in a bubble of synctest.
type rig struct {
	t     *testing.T
	st    *store.Store
	svc   *tokens.Service
	ahead atomic.Int64 // of the bubble's clock

	secrets []tokens.Secret // of everything that was made
	logs    *proctest.Output

	mu       sync.Mutex
	news     chan struct{}
	received []received
	answers  map[string]func(context.Context, received) webhook.Outcome // by URL; none: accepted
	busy     map[string]bool                                            // URLs with tokens that have a message under way
}

// received is a message as an endpoint got it.
type received struct {
	URL, ID string
	At      time.Time
	Type    string
	Time    time.Time
	Data    map[string]any
	Body    string
}

func (m received) token() string { id, _ := m.Data["token_id"].(string); return id }

// inBubble runs a test with a clock of its own, which begins in 2026, for ids count from 2020.
func inBubble(t *testing.T, test func(*testing.T, *rig)) {
	t.Helper()
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		pause(time.Until(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)))
		test(t, newRig(t, dir))
	})
}

func newRig(t *testing.T, dir string) *rig {
	t.Helper()
	r := &rig{
		t:       t,
		logs:    proctest.NewOutput(),
		news:    make(chan struct{}),
		busy:    map[string]bool{},
		answers: map[string]func(context.Context, received) webhook.Outcome{},
	}
	made := servicetest.New(t, servicetest.Options{
		File:    filepath.Join(dir, "patd.db"),
		Now:     r.now,
		Feed:    true,
		Between: func(st *store.Store) tokens.Store { return told{st, r} },
	})
	r.st, r.svc = made.Store, made.Service
	return r
}

// told is a store that tells the engines of each change.
type told struct {
	*store.Store
	r *rig
}

func (s told) Update(ctx context.Context, fn func(tokens.Tx) ([]tokens.Event, error)) error {
	defer s.r.poke()
	return s.Store.Update(ctx, fn)
}

func (r *rig) poke() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.news)
	r.news = make(chan struct{})
}

func (r *rig) changes() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.news
}

func (r *rig) now() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())).UTC() }

// jump sets the clock forward, without a wait.
func (r *rig) jump(d time.Duration) {
	r.ahead.Add(int64(d))
	r.poke()
}

// pass lets time pass in steps, faster than by waiting, which has the engines write leases all along.
func (r *rig) pass(d, step time.Duration) {
	for ; d > 0; d -= step {
		r.jump(step)
		pause(100 * time.Millisecond)
	}
}

// engine starts a server's engine; the result ends it well.
func (r *rig) engine(name string) (e *webhook.Engine, stop func()) { return r.engineOn(r.st, name) }

func (r *rig) engineOn(q webhook.Queue, name string) (e *webhook.Engine, stop func()) {
	r.t.Helper()
	e = webhook.New(webhook.Config{Queue: q, Domain: domain{r}, News: r.changes, Holder: name, Now: r.now,
		Logger: slog.New(slog.NewJSONHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Failed: func(err error) { fmt.Fprintln(r.logs, err) },
	}.WithSender(r.receive))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); e.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	r.t.Cleanup(stop)
	return e, stop
}

// receive is the far end of all engines. Two messages of one subject at once, to one endpoint, fail the test.
func (r *rig) receive(ctx context.Context, url, id string, body []byte, _ []tokens.Secret) webhook.Outcome {
	var m received
	if err := json.Unmarshal(body, &struct {
		Type      *string
		Timestamp *time.Time
		Data      *map[string]any
	}{&m.Type, &m.Time, &m.Data}); err != nil {
		r.t.Errorf("a body that is no message: %v\n%s", err, body)
	}
	m.URL, m.ID, m.At, m.Body = url, id, r.now(), string(body)
	line := url + " " + m.token()
	r.mu.Lock()
	r.received = append(r.received, m)
	answer, busy := r.answers[url], r.busy[line]
	r.busy[line] = m.token() != ""
	r.mu.Unlock()
	if busy {
		r.t.Errorf("two messages about token %s at once", m.token())
	}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.busy, line)
	}()
	if answer == nil {
		return webhook.Outcome{Status: 204}
	}
	return answer(ctx, m)
}

// answer says how an endpoint answers from now on; nil: it accepts.
func (r *rig) answer(url string, f func(context.Context, received) webhook.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers[url] = f
}

func status(code int) webhook.Outcome {
	if code < 300 {
		return webhook.Outcome{Status: code}
	}
	return webhook.Outcome{Status: code, Failure: webhook.FailureStatus}
}

// at returns what an endpoint received so far.
func (r *rig) at(url string) []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.received), func(m received) bool { return m.URL != url })
}

// add adds a webhook.
func (r *rig) add(num tokens.ID, url string, f tokens.WebhookFilter) {
	r.t.Helper()
	w := tokens.Webhook{
		Num:        num,
		ID:         fmt.Sprint("wh", int64(num)),
		URL:        url,
		Filter:     f,
		Enabled:    true,
		CreateTime: r.now(),
		UpdateTime: r.now(),
		Secret:     tokens.SealedSecret{Key: "k1", Box: []byte("box")},
	}
	must(r.t, told{r.st, r}.Update(context.Background(), func(tx tokens.Tx) ([]tokens.Event, error) {
		newest, err := tx.Events(tokens.EventQuery{Limit: 1})
		if err != nil {
			return nil, err
		}
		w.Cursor = newest[0].Seq
		return []tokens.Event{
				{
					Time:    r.now(),
					Actor:   "operator",
					Action:  tokens.ActionWebhookCreate,
					Outcome: tokens.OutcomeSuccess,
					Detail:  w.ID,
				},
			}, tx.InsertWebhook(
				w,
			)
	}))
}

func (r *rig) webhook(num tokens.ID) (w tokens.Webhook) {
	r.t.Helper()
	must(r.t, r.st.View(context.Background(), func(tx tokens.ReadTx) (err error) {
		w, err = tx.WebhookByNum(num)
		return err
	}))
	return w
}

// domain decides as tokens.Service does.
type domain struct{ r *rig }

func (domain) OpenWebhookSecrets(tokens.Webhook) ([]tokens.Secret, error) {
	return []tokens.Secret{secret.NewSecret(secretA)}, nil
}

func (d domain) DisableWebhook(ctx context.Context, l tokens.WebhookLease, reason string) error {
	return told{d.r.st, d.r}.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		w, err := tx.WebhookByNum(l.Webhook)
		if err != nil {
			return nil, err
		}
		w.Enabled, w.DisableTime, w.DisableReason = false, d.r.now(), reason
		return []tokens.Event{
				{
					Time:    d.r.now(),
					Actor:   "nobody",
					Action:  tokens.ActionWebhookDisable,
					Outcome: tokens.OutcomeSuccess,
					Detail:  w.ID + " " + reason,
				},
			}, tx.UpdateWebhook(
				w,
			)
	})
}

// hold gives a user features.
func (r *rig) hold(user string, features ...string) {
	r.t.Helper()
	_, err := r.svc.SetUserFeatures(context.Background(), tokens.Operator(), user, features)
	must(r.t, err)
}

// mint makes a token, whose user holds the features a and b.
func (r *rig) mint(user, name string, change ...func(*tokens.MintRequest)) tokens.Token {
	r.t.Helper()
	r.hold(user, "a", "b")
	q := tokens.MintRequest{User: user, Name: name, Scopes: []string{"a"}}
	for _, f := range change {
		f(&q)
	}
	m, err := r.svc.Mint(context.Background(), tokens.Operator(), q)
	must(r.t, err)
	r.secrets = append(r.secrets, m.Secret)
	return m.Token
}

func (r *rig) relabel(t tokens.Token, label string) {
	r.t.Helper()
	labels := map[string]string{"n": label}
	_, err := r.svc.UpdateToken(
		context.Background(),
		tokens.Operator(),
		t.User,
		t.ID.String(),
		tokens.TokenChange{Labels: &labels},
	)
	must(r.t, err)
}

func (r *rig) revoke(t tokens.Token, reason string) {
	r.t.Helper()
	_, err := r.svc.Revoke(context.Background(), tokens.Operator(), t.User, t.ID.String(), reason)
	must(r.t, err)
}

// kinds are the types of messages, as one text.
func kinds(list []received) string {
	var all []string
	for _, m := range list {
		all = append(all, m.Type)
	}
	return strings.Join(all, " ")
}

// pause lets time pass in a bubble, until nothing else is to be done before.
func pause(d time.Duration) { <-time.After(d) }
