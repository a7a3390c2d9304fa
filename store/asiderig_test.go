package store_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"patd/store"
	"patd/tokens"
)

var (
	errNameTaken = errors.New("the name is taken")
	errMany      = errors.New("the user has as many as it may")
	errSuspended = errors.New("the user is suspended")
)

// mostOfUser is how many tokens a user may have here.
const mostOfUser = 4

// minting is a change of a group that mints, and what its caller saw.
type minting struct {
	n      int
	how    ending
	user   string
	name   string
	key    byte // of an idempotent request; 0: none
	borrow bool // it first tries the id of the one before

	id       tokens.ID
	holder   tokens.ID // who has the name
	replayed bool
	err      error
	value    any
	exited   bool
}

// Ways in which a mint can end, beside those of other changes.
const (
	looksAgain   ending = "looks at what it wrote"
	addsPrefix   ending = "writes to a table of its own, too"
	suspendsUser ending = "suspends the user"
)

var waysToMint = []ending{
	succeeds,
	succeeds,
	succeeds,
	succeeds,
	succeeds,
	looksAgain,
	addsPrefix,
	refuses,
	fails,
	violates,
	readsOnly,
	panics,
	exits,
}

func mintedID(n int) tokens.ID { return tokens.ID(1_000_000 + n) }

func (c *minting) call(ctx context.Context, st tokens.Store) {
	c.exited = true
	defer func() {
		c.value = recover()
		c.exited = c.exited && c.value == nil
	}()
	c.err = st.Update(ctx, c.do)
	c.exited = false
}

func (c *minting) event(id tokens.ID) []tokens.Event {
	return []tokens.Event{
		{Time: time.Now(), Actor: "group", Action: "test", User: c.user, TokenID: id, Reason: strconv.Itoa(c.n),
			Outcome: tokens.OutcomeSuccess},
	}
}

func (c *minting) do(tx tokens.Tx) ([]tokens.Event, error) {
	c.id, c.holder, c.replayed = 0, 0, false
	now := time.Now()
	request := tokens.RequestKey{c.key, byte(len(c.user))}
	copy(request[2:], c.user)
	if c.key != 0 {
		r, err := tx.Request(request, now)
		if err == nil {
			c.id, c.replayed = r.TokenID, true
			return nil, nil
		}
		if !errors.Is(err, tokens.ErrNotFound) {
			return nil, err
		}
	}
	u, err := tx.User(c.user)
	if errors.Is(err, tokens.ErrNotFound) && c.how == readsOnly {
		return nil, nil
	}
	if errors.Is(err, tokens.ErrNotFound) {
		u = tokens.User{ID: c.user, State: tokens.UserActive, CreateTime: now}
		u.Key, err = tx.InsertUser(u)
	}
	switch {
	case err != nil:
		return nil, err
	case u.State != tokens.UserActive:
		return nil, errSuspended
	case c.how == suspendsUser:
		u.State = tokens.UserSuspended
		return c.event(0), tx.UpdateUser(u)
	}
	live, err := tx.LiveTokens(u.Key, now)
	if err != nil {
		return nil, err
	}
	for _, l := range live {
		if l.NameKey == c.name {
			c.holder = l.ID
			return nil, errNameTaken
		}
	}
	switch {
	case len(live) >= mostOfUser:
		return nil, errMany
	case c.how == readsOnly:
		return nil, nil
	case c.how == refuses:
		return nil, errRefused
	}
	if err := c.insert(tx, u, now); err != nil {
		return nil, err
	}
	switch c.how {
	case looksAgain:
		if again, err := tx.LiveTokens(u.Key, now); err != nil || len(again) != len(live)+1 {
			return nil, fmt.Errorf("%d live tokens after it wrote one more than %d: %w", len(again), len(live), err)
		}
	case addsPrefix:
		err = tx.PutPrefix(fmt.Sprintf("p%06d", c.n))
	case fails:
		return nil, errRefused
	case panics:
		panic(errRefused)
	case exits:
		runtime.Goexit()
	}
	if err == nil && c.key != 0 {
		err = tx.PutRequest(tokens.Request{Key: request, TokenID: c.id, ExpireTime: now.Add(time.Hour)}, now)
	}
	return c.event(c.id), err
}

func (c *minting) insert(tx tokens.Tx, u tokens.User, now time.Time) error {
	h := tokens.Hash{Key: "fill", Sum: [32]byte{byte(c.n)}}
	if c.how == violates {
		h.Key = "unknown"
	}
	ids := []tokens.ID{mintedID(c.n)}
	if c.borrow {
		ids = []tokens.ID{mintedID(c.n - 1), mintedID(c.n)}
	}
	var err error
	for _, c.id = range append(ids, mintedID(c.n+1<<40)) {
		err = tx.InsertToken(
			tokens.Token{ID: c.id, UserKey: u.Key, User: u.ID, Name: c.name, Scopes: []string{"a.read"}, IssueTime: now,
				ExpireTime: now.Add(time.Hour)},
			h,
		)
		if !errors.Is(err, tokens.ErrTaken) {
			break
		}
	}
	return err
}

// wrong says how what the caller saw differs from what it should have.
func (c *minting) wrong() string {
	ok := false
	refused := errors.Is(c.err, errNameTaken) || errors.Is(c.err, errMany) || errors.Is(c.err, errSuspended)
	switch c.how {
	case succeeds, looksAgain, addsPrefix, readsOnly, suspendsUser:
		ok = c.err == nil || refused
	case refuses, fails:
		ok = errors.Is(c.err, errRefused) || refused
	case violates:
		ok = reason(c.err) == "STORE_UNAVAILABLE" || refused
	case panics:
		err, _ := c.value.(error)
		ok = errors.Is(err, errRefused) || refused
	case exits:
		ok = c.exited || refused
	}
	if ok || c.replayed {
		return ""
	}
	return fmt.Sprintf("change %d, which %s: error %v, panic %v, exited %t", c.n, c.how, c.err, c.value, c.exited)
}

func (c *minting) made() bool {
	return c.err == nil && !c.exited && c.value == nil && !c.replayed && c.how != readsOnly
}

// mintTogether puts all changes in line, one after another, and then lets the writer go.
func mintTogether(t *testing.T, st *store.Store, group []*minting) {
	t.Helper()
	release := held(t, st)
	var wg sync.WaitGroup
	for i, c := range group {
		wg.Go(func() { c.call(context.Background(), st) })
		inLine(t, st, i+1)
	}
	release()
	wg.Wait()
}

// manyMints are mints of different users.
func manyMints(n, from int) (group []*minting) {
	for i := range n {
		c := &minting{
			n:    from + i,
			how:  succeeds,
			user: fmt.Sprintf("u%d", from+i),
			name: fmt.Sprintf("of%d", from+i),
			key:  byte(i % 5),
		}
		group = append(group, c)
	}
	return group
}

// withUsers adds the users of mints.
func withUsers(t *testing.T, st *store.Store, group []*minting) {
	t.Helper()
	must(t, st.Update(t.Context(), func(tx tokens.Tx) (events []tokens.Event, err error) {
		for _, c := range group {
			_, one := tx.InsertUser(tokens.User{ID: c.user, State: tokens.UserActive, CreateTime: time.Now()})
			err = errors.Join(err, one)
		}
		return []tokens.Event{
			{Time: time.Now(), Actor: "operator", Action: "test", Outcome: tokens.OutcomeSuccess},
		}, err
	}))
}
