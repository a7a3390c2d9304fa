package main

import (
	"log/slog"
	"math"
	"testing"
	"time"

	"patd/server"
	"patd/server/signin"
	"patd/tokens/secret"
)

func TestTheAgeOfTheHashKeyAndTheSizeOfTheStoreAreMeasured(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	start := clock.now()
	c, o := opens(t, clock)
	x := &expiries{store: o.Store, now: c.Now, log: slog.New(slog.DiscardHandler)}
	if age, size := x.measured(); age != 0 || size != 0 {
		t.Errorf("before a look: %v s, %v bytes", age, size)
	}
	clock.set(start.Add(3 * 24 * time.Hour))
	x.look(t.Context())
	age, size := x.measured()
	if want := (3 * 24 * time.Hour).Seconds(); math.Abs(age-want) > 60 {
		t.Errorf("after three days the key is %v s old, want %v", age, want)
	}
	want, err := o.Size(t.Context())
	if err != nil || size != float64(want) || size < 16<<10 {
		t.Errorf("%v bytes, the store has %d, %v", size, want, err)
	}
}

func TestSignInFiguresHaveEachCauseAndTheAgeOfKeys(t *testing.T) {
	t.Parallel()
	s, err := signin.New(
		signin.Config{Issuers: []signin.Issuer{{URL: "http://127.0.0.1:1", Audiences: []string{"patd"}}}},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for range 3 {
		if _, err := s.Verify(t.Context(), secret.NewSecret("a.b.c")); err == nil {
			t.Fatal("accepted")
		}
	}
	value := func(of []server.Figure, name, cause string) float64 {
		for _, f := range of {
			if f.Name == name && f.Labels["cause"] == cause {
				return f.Value
			}
		}
		t.Fatalf("no %s %s", name, cause)
		return 0
	}
	figures := signInFigures(s, time.Now())
	for _, cause := range []string{"malformed", "issuer", "expired", "claims", "signature", "unavailable"} {
		want := 0.0
		if cause == "malformed" {
			want = 3
		}
		if got := value(figures, "patd_signin_refusals_total", cause); got != want {
			t.Errorf("%s: %v, want %v", cause, got, want)
		}
	}
	if got := value(figures, "patd_signin_keys_age_seconds", ""); !math.IsInf(got, 1) {
		t.Errorf("no keys were fetched, and they are %v s old", got)
	}
}
