package store_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"patd/internal/waittest"
	"patd/store"
	"patd/tokens"
)

// ending is how a change ends, after it wrote a prefix of its own.
type ending string

const (
	succeeds    ending = "succeeds"
	findsTaken  ending = "goes on after ErrTaken"
	readsOnly   ending = "reads only"
	refuses     ending = "refuses before it writes"
	fails       ending = "fails after it wrote"
	violates    ending = "violates a constraint"
	hides       ending = "hides that it violated a constraint"
	violatesEnd ending = "violates a constraint that is checked at the end"
	loses       ending = "loses the transaction"
	losesEarly  ending = "loses the transaction before it writes"
	panics      ending = "panics"
	exits       ending = "ends its goroutine"
	gives       ending = "gives up in line"
)

var endings = []ending{
	succeeds,
	succeeds,
	succeeds,
	findsTaken,
	readsOnly,
	refuses,
	fails,
	violates,
	hides,
	violatesEnd,
	loses,
	losesEarly,
	panics,
	exits,
	gives,
}

var errRefused = errors.New("refused")

// change is a change of a group, and what its caller saw.
type change struct {
	ending ending
	n      int // its number; the name of its prefix, and the token of its event
	ranAs  int64
	err    error
	value  any // of its panic
	exited bool
}

func (c *change) name() string { return fmt.Sprintf("p%06d", c.n) }

// call makes the change, and notes how it ended.
func (c *change) call(ctx context.Context, st tokens.Store, clock *atomic.Int64) {
	c.exited = true
	defer func() {
		c.value = recover()
		c.exited = c.exited && c.value == nil
	}()
	c.err = st.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		c.ranAs = clock.Add(1)
		return c.do(tx)
	})
	c.exited = false
}

func (c *change) do(tx tokens.Tx) ([]tokens.Event, error) {
	switch c.ending {
	case readsOnly:
		_, err := tx.Prefixes()
		return nil, err
	case refuses:
		return nil, errRefused
	case losesEarly:
		return nil, store.Lose(tx)
	}
	e := tokens.Event{
		Time:    time.Now(),
		Actor:   "group",
		Action:  "test",
		TokenID: tokens.ID(c.n),
		Outcome: tokens.OutcomeSuccess,
	}
	err := tx.PutPrefix(c.name())
	if err != nil {
		return nil, err
	}
	switch c.ending {
	case findsTaken:
		if _, err := tx.InsertUser(tokens.User{ID: "taken"}); !errors.Is(err, tokens.ErrTaken) {
			return nil, fmt.Errorf("insert a user who is there: %w", err)
		}
	case fails:
		err = errRefused
	case violates, hides:
		err = tx.InsertToken(tokens.Token{ID: 1, Name: "n", Scopes: []string{"s"}}, tokens.Hash{Key: "unknown"})
		if c.ending == hides {
			err = nil
		}
	case violatesEnd:
		err = store.BreakDeferredRule(tx)
	case loses:
		err = store.Lose(tx)
	case panics:
		panic(errRefused)
	case exits:
		runtime.Goexit()
	}
	return []tokens.Event{e}, err
}

// wrong says how what the caller saw differs from what it should have.
func (c *change) wrong() string {
	ok := false
	switch c.ending {
	case succeeds, findsTaken, readsOnly:
		ok = c.err == nil
	case refuses, fails:
		ok = errors.Is(c.err, errRefused)
	case violates, hides, violatesEnd, loses, losesEarly:
		ok = reason(c.err) == "STORE_UNAVAILABLE"
	case panics:
		err, _ := c.value.(error)
		ok = errors.Is(err, errRefused) && strings.Contains(err.Error(), "(*change).do")
	case exits:
		ok = c.exited
	case gives:
		ok = errors.Is(c.err, context.Canceled) && c.ranAs == 0
	}
	if ok && (c.ending == exits || !c.exited) && (c.ending == panics || c.value == nil) {
		return ""
	}
	return fmt.Sprintf("a change that %s: error %v, panic %v, exited %t", c.ending, c.err, c.value, c.exited)
}

func (c *change) kept() bool { return c.ending == succeeds || c.ending == findsTaken }

// held keeps the writer busy until release is called.
func held(t *testing.T, st *store.Store) (release func()) {
	t.Helper()
	inside, leave := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		var once sync.Once
		err := st.Update(context.Background(), func(tokens.Tx) ([]tokens.Event, error) {
			once.Do(func() { close(inside) })
			<-leave
			return nil, nil
		})
		if err != nil {
			t.Errorf("hold the writer: %v", err)
		}
	})
	<-inside
	return func() { close(leave); wg.Wait() }
}

// inLine waits until n wait for the writer, or more: a store whose writer is busy for seconds looks whether changes
// fail, and waits too.
func inLine(t *testing.T, st *store.Store, n int) {
	t.Helper()
	waittest.Until(t, fmt.Sprintf("a line of %d", n), func() bool { return st.InLine() >= n })
}

func TestAChangeOfAGroupSucceedsOrFailsByItself(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
	exec1(t, st, store.WithDeferredRule)
	must(t, st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
		_, err := tx.InsertUser(tokens.User{ID: "taken"})
		return []tokens.Event{{Time: time.Now(), Actor: "test", Action: "test", Outcome: tokens.OutcomeRefused}}, err
	}))
	var clock atomic.Int64
	var all []*change
	rapid.Check(t, func(rt *rapid.T) {
		var group []*change
		for _, e := range rapid.SliceOfN(rapid.SampledFrom(endings), 1, 40).Draw(rt, "endings") {
			group = append(group, &change{ending: e, n: len(all) + len(group) + 1})
		}
		runGroup(t, st, group, &clock)
		all = append(all, group...)
		for _, c := range group {
			if wrong := c.wrong(); wrong != "" {
				rt.Error(wrong)
			}
		}
		checkKept(rt, t, st, all)
	})
}

// runGroup puts all changes in line, one after another, and then lets the writer go.
func runGroup(t *testing.T, st *store.Store, group []*change, clock *atomic.Int64) {
	t.Helper()
	release := held(t, st)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg, gone sync.WaitGroup
	for i, c := range group {
		wait, of := &wg, t.Context()
		if c.ending == gives {
			wait, of = &gone, ctx
		}
		wait.Go(func() { c.call(of, st, clock) })
		inLine(t, st, i+1)
	}
	cancel()
	gone.Wait()
	release()
	wg.Wait()
}

// checkKept compares the store with the changes that succeeded: their rows, an event and an entry of the feed each, in
// the order in which they ran, and nothing else.
func checkKept(rt *rapid.T, t *testing.T, st *store.Store, all []*change) {
	var want []*change
	var names []string
	for _, c := range all {
		if c.kept() {
			want = append(want, c)
			names = append(names, c.name())
		}
	}
	slices.SortFunc(want, func(a, b *change) int { return int(a.ranAs - b.ranAs) })
	ids := make([]string, len(want))
	for i, c := range want {
		ids[i] = strconv.Itoa(c.n)
	}
	slices.Sort(names)
	for _, check := range []struct {
		query string
		want  []string
	}{
		{`SELECT prefix FROM prefixes ORDER BY prefix`, names},
		{`SELECT token_id FROM events WHERE actor = 'group' ORDER BY seq`, ids},
		{`SELECT token_id FROM changes WHERE token_id > 0 ORDER BY seq`, ids},
		{`SELECT token_id FROM deferred`, nil},
		{`SELECT id FROM tokens`, nil},
	} {
		got, err := st.Texts(context.Background(), 0, check.query)
		if err != nil {
			t.Fatal(err)
		}
		if len(got)+len(check.want) == 0 {
			continue
		}
		if diff := cmp.Diff(check.want, got); diff != "" {
			rt.Errorf("%s (-want +got):\n%s", check.query, diff)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAChangeThatDoesNotFitLeavesTheOthersOfItsGroup(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	st := open(t, path, store.Options{FlushInterval: time.Hour})
	pages, err := st.Texts(t.Context(), 0, `PRAGMA page_count`)
	must(t, err)
	n, err := strconv.Atoi(pages[0])
	must(t, err)
	exec1(t, st, fmt.Sprintf(`PRAGMA max_page_count = %d`, n+10))
	release := held(t, st)
	var wg sync.WaitGroup
	errs := make([]error, 30)
	for i := range errs {
		name := fmt.Sprintf("p%02d", i)
		if i%10 == 5 {
			name = strings.Repeat(name, 50_000)
		}
		wg.Go(func() { errs[i] = tryPut(t.Context(), st, name) })
		inLine(t, st, i+1)
	}
	release()
	wg.Wait()
	for i, err := range errs {
		switch {
		case i%10 == 5 && reason(err) != "DISK_FULL":
			t.Errorf("change %d, which does not fit: %v", i, err)
		case i%10 != 5 && err != nil:
			t.Errorf("change %d, which fits: %v", i, err)
		}
	}
	if got := len(prefixes(t, st)); got != 27 || count(t, st, "events") != "27" || count(t, st, "changes") != "27" {
		t.Errorf("%d prefixes, %s events, %s changes; want 27", got, count(t, st, "events"), count(t, st, "changes"))
	}
}

func TestWhatACommitRefusesNobodyIsPromised(t *testing.T) {
	t.Parallel()
	for _, refusals := range []int{1, 1000} {
		st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
		must(t, st.RefuseCommits(refusals))
		release := held(t, st)
		var wg sync.WaitGroup
		errs := make([]error, 20)
		for i := range errs {
			wg.Go(func() { errs[i] = tryPut(t.Context(), st, fmt.Sprintf("p%02d", i)) })
		}
		inLine(t, st, len(errs))
		release()
		wg.Wait()
		must(t, st.RefuseCommits(0))
		kept := 0
		for _, err := range errs {
			if err == nil {
				kept++
			} else if reason(err) != "STORE_UNAVAILABLE" {
				t.Errorf("a commit that was refused: %v", err)
			}
		}
		want := 0 // none could be committed
		if refusals == 1 {
			want = len(errs) // each was, by itself
		}
		if got := len(prefixes(t, st)); got != kept || kept != want {
			t.Errorf("%d prefixes of %d changes that were answered, want %d", got, kept, want)
		}
	}
}

func TestAThousandCallersShareTransactions(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
	must(t, st.RefuseCommits(0)) // counts them
	release := held(t, st)
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			if err := tryPut(t.Context(), st, fmt.Sprintf("p%04d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	inLine(t, st, 1000)
	release()
	wg.Wait()
	if got := len(
		prefixes(t, st),
	); got != 1000 || count(t, st, "events") != "1000" ||
		count(t, st, "changes") != "1000" {
		t.Errorf("%d prefixes, %s events, %s changes", got, count(t, st, "events"), count(t, st, "changes"))
	}
	if n := st.Commits(); n > 20 {
		t.Errorf("%d commits for 1000 changes that waited together", n)
	}
}

func TestHousekeepingGivesWayAndIsNotForgotten(t *testing.T) {
	t.Parallel()
	st := open(t, newPath(t), store.Options{FlushInterval: time.Hour})
	id := fill(t, st, 1)[0]
	release := held(t, st)
	st.RecordUse(tokens.Usage{ID: id, Use: tokens.Use{Time: time.Now()}})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := st.Flush(context.Background()); err != nil {
			t.Error(err)
		}
	})
	inLine(t, st, 1)
	var before, after int // how many changes came before the housekeeping, and after it
	for range 2000 {
		wg.Go(func() {
			err := st.Update(context.Background(), func(tx tokens.Tx) ([]tokens.Event, error) {
				tok, err := tx.Token(id)
				if tok.LastUsed.Time.IsZero() {
					before++
				} else {
					after++
				}
				return nil, err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	inLine(t, st, 2001)
	release()
	wg.Wait()
	if before == 0 || after == 0 {
		t.Errorf("%d changes that waited came before the housekeeping, %d after it", before, after)
	}
}

func TestCloseAnswersThoseInLine(t *testing.T) {
	t.Parallel()
	st, err := store.Open(t.Context(), "sqlite:"+newPath(t), store.Options{FlushInterval: time.Hour})
	must(t, err)
	release := held(t, st)
	var wg sync.WaitGroup
	var kept, refused atomic.Int64
	for i := range 50 {
		wg.Go(func() {
			switch err := tryPut(context.Background(), st, fmt.Sprint("p", i)); {
			case err == nil:
				kept.Add(1)
			case reason(err) == "STORE_UNAVAILABLE":
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	inLine(t, st, 50)
	wg.Go(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	release()
	wg.Wait()
	if kept.Load()+refused.Load() != 50 {
		t.Errorf("%d kept, %d refused; want an answer for each of 50", kept.Load(), refused.Load())
	}
	if got := len(prefixes(t, open(t, st.Path(), store.Options{}))); int64(got) != kept.Load() {
		t.Errorf("%d prefixes of %d changes that were answered", got, kept.Load())
	}
}
