package featurestest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/tokens"
)

// Fault is a way for an answer to be wrong.
type Fault int

// The faults. Each must be an outage.
const (
	NameWithSpace Fault = iota
	NameEmpty
	NameTooLong
	NameNotASCII
	NotText // NULL or a number, depending on the system
)

// faults returns the faults by name.
func faults() map[string]Fault {
	return map[string]Fault{
		"space":     NameWithSpace,
		"empty":     NameEmpty,
		"too long":  NameTooLong,
		"not ASCII": NameNotASCII,
		"not text":  NotText,
	}
}

// Name is the malformed feature name of a fault; NotText has none.
func (f Fault) Name() string {
	switch f {
	case NameWithSpace:
		return "marker name"
	case NameTooLong:
		return "marker" + strings.Repeat("x", 128)
	case NameNotASCII:
		return "marker-é"
	default:
		return ""
	}
}

// Rig is a source with controls for the company's system behind it. All of its functions are required.
type Rig struct {
	Source tokens.FeatureSource
	// Hold makes the company's system say that a user holds exactly these features, in this order, repeated ones too.
	Hold func(t *testing.T, user string, features ...string)
	// Spoil makes it return something malformed about a user, beside one good feature.
	Spoil func(t *testing.T, user string, f Fault)
	// Stall keeps it from answering any request, without breaking connections, until release is called.
	Stall func(t *testing.T) (release func())
	// Down stops it, Up starts it again with the same data.
	Down, Up func(t *testing.T)
	// Max is how many features an answer may hold.
	Max int
	// Within is how soon an outage must be reported.
	Within time.Duration
}

// Run runs the suite.
func Run(t *testing.T, r Rig) {
	t.Run("NotLocal", func(t *testing.T) {
		if r.Source.Local() {
			t.Fatal("the source says that it is local")
		}
	})
	t.Run("UnknownUserHoldsNothing", func(t *testing.T) { r.holds(t, "nobody-of-that-name") })
	t.Run("Empty", func(t *testing.T) {
		r.Hold(t, "empty")
		r.holds(t, "empty")
	})
	t.Run("SortedWithoutDuplicates", func(t *testing.T) {
		r.Hold(t, "sorted", "b", "a", "c", "a", "B")
		r.holds(t, "sorted", "B", "a", "b", "c")
	})
	t.Run("AnyFeatureName", func(t *testing.T) {
		long := strings.Repeat("y", 128)
		r.Hold(t, "names", "!", "~", long, "a'b", "a;b", "https://api.example/x?y=%20&z#1")
		r.holds(t, "names", "!", "a'b", "a;b", "https://api.example/x?y=%20&z#1", long, "~")
	})
	t.Run("UserIDIsExact", func(t *testing.T) { exact(t, r) })
	t.Run("ChangeCountsAtOnce", func(t *testing.T) {
		r.Hold(t, "changing", "a", "b")
		r.holds(t, "changing", "a", "b")
		r.Hold(t, "changing", "b")
		r.holds(t, "changing", "b")
		r.Hold(t, "changing")
		r.holds(t, "changing")
		r.Hold(t, "changing", "a")
		r.holds(t, "changing", "a")
	})
	t.Run("MalformedIsAnOutage", func(t *testing.T) {
		for name, f := range faults() {
			t.Run(name, func(t *testing.T) {
				r.Spoil(t, "spoiled", f)
				r.fails(t, "spoiled")
				r.Hold(t, "spoiled", "good")
				r.holds(t, "spoiled", "good")
			})
		}
	})
	t.Run("OversizedIsAnOutage", func(t *testing.T) { oversized(t, r) })
	t.Run("EachHearsOfItself", func(t *testing.T) { concurrent(t, r) })
	t.Run("CancelledIsTheContextsError", func(t *testing.T) { cancelled(t, r) })
	t.Run("SlowIsAnOutage", func(t *testing.T) { slow(t, r) })
	t.Run("OutageAndRecovery", func(t *testing.T) { outage(t, r) })
}

func (r Rig) ask(t *testing.T, user string) (tokens.Held, error) {
	t.Helper()
	start := time.Now()
	held, err := r.Source.Features(t.Context(), tokens.User{ID: user}, true)
	if d := time.Since(start); d > r.Within {
		t.Errorf("the answer took %v; the bound is %v", d, r.Within)
	}
	return held, err
}

// holds requires that the source returns exactly these features of a user.
func (r Rig) holds(t *testing.T, user string, want ...string) {
	t.Helper()
	held, err := r.ask(t, user)
	if err != nil {
		t.Fatalf("ask about %q: %v", user, err)
	}
	if held.Stale {
		t.Errorf("a fresh answer about %q is stale", user)
	}
	if want == nil {
		want = []string{}
	}
	if d := cmp.Diff(want, append([]string{}, held.Features...)); d != "" {
		t.Fatalf("features of %q (-want +got):\n%s", user, d)
	}
}

// fails requires that a request about a user is an outage whose error quotes none of the data.
func (r Rig) fails(t *testing.T, user string) {
	t.Helper()
	held, err := r.ask(t, user)
	isOutage(t, held, err)
	if strings.Contains(err.Error(), "marker") || strings.Contains(err.Error(), user) {
		t.Errorf("the error quotes the data: %v", err)
	}
}

func isOutage(t *testing.T, held tokens.Held, err error) {
	t.Helper()
	var e *tokens.Error
	if !errors.As(err, &e) || e.Code != tokens.CodeUnavailable || e.Reason != "FEATURES_UNAVAILABLE" {
		t.Fatalf("want FEATURES_UNAVAILABLE, got %v, %v", held, err)
	}
	if len(held.Features) > 0 {
		t.Fatalf("an outage came with features: %v", held.Features)
	}
}

// exact checks that a user id is only a value, whatever it contains, and that no other id is taken for it.
func exact(t *testing.T, r Rig) {
	ids := []string{
		"alice",
		"Alice",
		"alice ",
		" alice",
		"álice",
		"alice\u0301",
		"7",
		"07",
		"7a",
		"7.0",
		"+7",
		"' OR '1'='1",
		`" OR ""="`,
		"x'; DROP TABLE user_features; --",
		`\`,
		`\'`,
		"%",
		"_",
		"$1",
		"?",
		":id",
		"@id",
		"NULL",
		"a/b:c?d#e%f",
		"日本語",
		"😀",
		strings.Repeat("u", 255),
		strings.Repeat("u", 254),
	}
	for i, id := range ids {
		r.Hold(t, id, fmt.Sprintf("only.%d", i))
	}
	for i, id := range ids {
		r.holds(t, id, fmt.Sprintf("only.%d", i))
	}
	for _, id := range []string{"ALICE", "alice  ", "7b", "007", "0x7", "7e0", "' OR '1'='2", "日本", "alic_", "a%"} {
		r.holds(t, id)
	}
}

func oversized(t *testing.T, r Rig) {
	all := make([]string, r.Max+1)
	for i := range all {
		all[i] = fmt.Sprintf("f%06d", i)
	}
	r.Hold(t, "holds-many", all[:r.Max]...)
	r.holds(t, "holds-many", all[:r.Max]...)
	r.Hold(t, "holds-many", all...)
	r.fails(t, "holds-many")
	r.Hold(t, "holds-many", "a")
	r.holds(t, "holds-many", "a")
}

// concurrent asks for several users at once. They are few: each waits for the others' connections within the time limit
// of its own request, also on a busy machine.
func concurrent(t *testing.T, r Rig) {
	const users = 8
	for i := range users {
		r.Hold(t, fmt.Sprintf("user-%d", i), fmt.Sprintf("of.%d", i))
	}
	var wg sync.WaitGroup
	for i := range users {
		wg.Go(func() {
			for range 20 {
				held, err := r.Source.Features(t.Context(), tokens.User{ID: fmt.Sprintf("user-%d", i)}, true)
				if want := fmt.Sprintf("of.%d", i); err != nil || !slices.Equal(held.Features, []string{want}) {
					t.Errorf("user-%d: %v, %v", i, held.Features, err)
				}
			}
		})
	}
	wg.Wait()
}

func cancelled(t *testing.T, r Rig) {
	release := r.Stall(t)
	defer release()
	for name, end := range map[string]func() (context.Context, context.CancelFunc){
		"before": func() (context.Context, context.CancelFunc) {
			c, f := context.WithCancel(t.Context())
			f()
			return c, f
		},
		"deadline": func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 50*time.Millisecond)
		},
	} {
		ctx, cancel := end()
		start := time.Now()
		held, err := r.Source.Features(ctx, tokens.User{ID: "alice"}, true)
		if want := ctx.Err(); !errors.Is(err, want) || len(held.Features) > 0 {
			t.Errorf("%s: %v, %v; want %v", name, held, err, want)
		}
		var e *tokens.Error
		if errors.As(err, &e) {
			t.Errorf("%s: the caller's end is told as an outage: %v", name, err)
		}
		if d := time.Since(start); d > r.Within {
			t.Errorf("%s: it took %v", name, d)
		}
		cancel()
	}
}

func slow(t *testing.T, r Rig) {
	r.Hold(t, "waits-long", "a")
	release := r.Stall(t)
	r.fails(t, "waits-long")
	release()
	r.recovers(t, "waits-long", "a")
}

func outage(t *testing.T, r Rig) {
	r.Hold(t, "user-of-outage", "a")
	r.holds(t, "user-of-outage", "a")
	r.Down(t)
	for range 3 {
		r.fails(t, "user-of-outage")
		r.fails(t, "somebody-else")
	}
	r.Up(t)
	r.recovers(t, "user-of-outage", "a")
	r.holds(t, "somebody-else")
}

// recovers asks until there is an answer, which must be the right one: an outage may take a moment to end, and must not
// turn into a wrong answer on the way.
func (r Rig) recovers(t *testing.T, user string, want ...string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for attempt := 1; ; attempt++ {
		held, err := r.ask(t, user)
		if err == nil {
			if !slices.Equal(held.Features, want) || held.Stale {
				t.Fatalf("after the outage: %v; want %v", held, want)
			}
			t.Logf("answers again at attempt %d", attempt)
			return
		}
		isOutage(t, held, err)
		if time.Now().After(deadline) {
			t.Fatalf("no recovery: %v", err)
		}
	}
}
