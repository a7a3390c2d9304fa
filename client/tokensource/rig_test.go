package tokensource_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"patd/client/tokensource"
	patdv1 "patd/gen/patd/v1"
	"patd/internal/proctest"
	"patd/tokens/secret"
)

// patd is a patd with one token, as its bearer sees it. What its rules are is tested with a real one in package main.
type patd struct {
	mu             sync.Mutex
	at             time.Time
	issued, expire time.Time
	renewableUntil time.Time
	life           time.Duration
	forbidden      bool // no self_rotate
	current        string
	previous       string // "": none
	previousUntil  time.Time
	answers        map[string]*patdv1.RotateSelfResponse // by secret and idempotency key
	made           int
	loseAnswers    int // so many rotations are made, and their answers lost
	fault          error
	rotateCalls    int
}

const start = "pat_the_first_secret_0"

func newPatd(life time.Duration) *patd {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	return &patd{
		at:      now,
		issued:  now,
		expire:  now.Add(life),
		life:    life,
		current: start,
		answers: map[string]*patdv1.RotateSelfResponse{},
	}
}

func (p *patd) now() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at
}

func (p *patd) wait(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = p.at.Add(d)
}

func (p *patd) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func refusal(code codes.Code, reason string) error {
	s, err := status.New(code, "refused").WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "patd"})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

// good returns until when a secret works; zero: it does not.
func (p *patd) good(text string) time.Time {
	switch {
	case !p.at.Before(p.expire):
	case text == p.current:
		return p.expire
	case text == p.previous && p.at.Before(p.previousUntil):
		return p.previousUntil
	}
	return time.Time{}
}

func (p *patd) works(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.good(text).IsZero()
}

func (p *patd) token() *patdv1.Token {
	t := &patdv1.Token{
		TokenId:    "15ODq7pq8Hy",
		SelfRotate: !p.forbidden,
		IssueTime:  timestamppb.New(p.issued),
		ExpireTime: timestamppb.New(p.expire),
	}
	if !p.renewableUntil.IsZero() {
		t.RenewableUntil = timestamppb.New(p.renewableUntil)
	}
	if p.previous != "" && p.at.Before(p.previousUntil) {
		t.Rotation = &patdv1.Rotation{PreviousSecretExpireTime: timestamppb.New(p.previousUntil)}
	}
	return t
}

// Self describes the token.
func (p *patd) Self(_ context.Context, s secret.Secret) (tokensource.Self, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault != nil {
		return tokensource.Self{}, p.fault
	}
	until := p.good(s.Reveal())
	if until.IsZero() {
		return tokensource.Self{}, refusal(codes.Unauthenticated, "TOKEN_SUPERSEDED")
	}
	return tokensource.Self{Token: p.token(), ExpireTime: until}, nil
}

// Rotate rotates it, or repeats an answer.
func (p *patd) Rotate(
	_ context.Context,
	s secret.Secret,
	r *patdv1.RotateSelfRequest,
) (*patdv1.RotateSelfResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rotateCalls++
	switch {
	case p.fault != nil:
		return nil, p.fault
	case p.good(s.Reveal()).IsZero():
		return nil, refusal(codes.Unauthenticated, "TOKEN_SUPERSEDED")
	case p.forbidden:
		return nil, refusal(codes.PermissionDenied, "SELF_ROTATE_NOT_ALLOWED")
	}
	key := s.Reveal() + " " + r.GetRequestId()
	if done := p.answers[key]; done != nil {
		return done, nil
	}
	if p.previous != "" && p.at.Before(p.previousUntil) {
		return nil, refusal(codes.FailedPrecondition, "ROTATION_IN_PROGRESS")
	}
	change := patdv1.Rotation_KEPT
	if r.GetRenew() {
		if p.renewableUntil.IsZero() {
			return nil, refusal(codes.FailedPrecondition, "RENEWAL_NOT_ALLOWED")
		}
		end := p.at.Add(p.life)
		if end.After(p.renewableUntil) {
			end = p.renewableUntil
		}
		if end.After(p.expire) {
			p.expire, change = end, patdv1.Rotation_RENEWED
		}
	}
	grace := 24 * time.Hour
	if r.GetGrace() != nil {
		grace = r.GetGrace().AsDuration()
	}
	p.made++
	p.previous, p.previousUntil = p.current, p.at.Add(grace)
	if p.previousUntil.After(p.expire) {
		p.previousUntil = p.expire
	}
	p.current = fmt.Sprintf("pat_secret_number_%d", p.made)
	p.answers[key] = &patdv1.RotateSelfResponse{
		Token:                    p.token(),
		Secret:                   p.current,
		PreviousSecretExpireTime: timestamppb.New(p.previousUntil),
		ExpireTimeChange:         change,
	}
	if p.loseAnswers > 0 {
		p.loseAnswers--
		return nil, status.Error(codes.Unavailable, "the connection was cut")
	}
	return p.answers[key], nil
}

// ServeHTTP is the same over REST.
func (p *patd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := secret.NewSecret(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	var text []byte
	var err error
	switch r.Method + " " + r.URL.Path {
	case "GET /v1/self":
		var self tokensource.Self
		if self, err = p.Self(r.Context(), s); err == nil {
			w.Header().Set("Patd-Token-Expires-At", self.ExpireTime.Format(time.RFC3339))
			text, err = protojson.Marshal(&patdv1.GetSelfResponse{Token: self.Token})
		}
	case "POST /v1/self:rotate":
		var q patdv1.RotateSelfRequest
		var resp *patdv1.RotateSelfResponse
		if text, err = io.ReadAll(r.Body); err == nil {
			err = protojson.Unmarshal(text, &q)
		}
		if err == nil {
			resp, err = p.Rotate(r.Context(), s, &q)
		}
		if err == nil {
			text, err = protojson.Marshal(resp)
		}
	default:
		http.NotFound(w, r)
		return
	}
	if err == nil {
		_, _ = w.Write(text)
		return
	}
	st := status.Convert(err)
	reason := ""
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			reason = info.GetReason()
		}
	}
	w.WriteHeader(http.StatusConflict)
	name := map[codes.Code]string{
		codes.Unauthenticated: "UNAUTHENTICATED", codes.PermissionDenied: "PERMISSION_DENIED",
		codes.FailedPrecondition: "FAILED_PRECONDITION", codes.Unavailable: "UNAVAILABLE",
	}[st.Code()]
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{
		"status":  name,
		"message": st.Message(),
		"details": []any{
			map[string]string{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "patd"},
		},
	}})
}

// tokenFile makes a file with the first secret, as old as the token.
func tokenFile(t testing.TB, p *patd) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	put(t, path, start)
	if err := os.Chtimes(path, p.issued, p.issued); err != nil {
		t.Fatal(err)
	}
	return path
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(text), "\n")
}

// source makes a Source of p, whose log is checked for secrets when the test ends.
func source(t testing.TB, p *patd, c tokensource.Config) (*tokensource.Source, *proctest.Output) {
	t.Helper()
	log := proctest.NewOutput()
	if c.API == nil {
		c.API = p
	}
	c.Now, c.Logger = p.now, slog.New(slog.NewTextHandler(log, nil))
	s, err := tokensource.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if strings.Contains(log.String(), "pat_") {
			t.Errorf("the log holds a secret: %s", log)
		}
	})
	return s, log
}

func serveREST(t testing.TB, h http.Handler) tokensource.API {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	api, err := tokensource.REST(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	return api
}
