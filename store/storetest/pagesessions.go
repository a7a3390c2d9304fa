package storetest

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"patd/tokens"
)

// session adds a session of the page, and returns it as it is read.
func (f *fixture) session(key byte, user string, change ...func(*tokens.PageSession)) tokens.PageSession {
	f.t.Helper()
	v := tokens.PageSession{
		ID:         tokens.ID(key) << 40,
		User:       user,
		IssueTime:  f.now,
		SeenTime:   f.now,
		ExpireTime: f.now.Add(time.Hour),
	}
	for _, c := range change {
		c(&v)
	}
	f.update(func(tx tokens.Tx) error { return tx.InsertPageSession(tokens.SessionKey{key}, v) },
		tokens.Event{User: user, Action: tokens.ActionSessionCreate})
	return v
}

// sessions returns the ids of a user's sessions that have not ended.
func (f *fixture) sessions(user string) (ids []tokens.ID) {
	f.t.Helper()
	f.view(func(tx tokens.ReadTx) error {
		list, err := tx.PageSessions(user, f.now, 10)
		for _, v := range list {
			ids = append(ids, v.ID)
		}
		return err
	})
	return ids
}

func testPageSessions(t *testing.T, f *fixture) {
	full := f.session(1, "u", func(v *tokens.PageSession) {
		v.Service, v.ReturnURL, v.Permissions, v.Features = "crm", "https://a.example/", tokens.PermTokens|tokens.PermUsers, []string{
			"a",
			"b",
		}
		v.IP, v.Agent, v.Hint, v.Draft = netip.MustParseAddr(
			"2001:db8::1",
		), "a browser", []byte(
			"hint",
		), []byte(
			"draft",
		)
	})
	bare := f.session(2, "u")
	none := f.session(3, "u", func(v *tokens.PageSession) { v.Features = []string{} })
	f.session(4, "other")
	f.session(5, "u", func(v *tokens.PageSession) { v.ExpireTime = f.now })
	read := func(key byte) (v tokens.PageSession, err error) {
		f.view(func(tx tokens.ReadTx) error { v, err = tx.PageSession(tokens.SessionKey{key}); return nil })
		return v, err
	}
	for key, want := range map[byte]tokens.PageSession{1: full, 2: bare, 3: none} {
		got, err := read(key)
		if err != nil {
			t.Fatal(err)
		}
		f.equal("a session", got, want)
	}
	if _, err := read(9); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("an unknown session: %v", err)
	}
	f.equal("a user's sessions", f.sessions("u"), []tokens.ID{none.ID, bare.ID, full.ID})
	f.view(func(tx tokens.ReadTx) error {
		list, err := tx.AllPageSessions(full.ID, f.now, 2)
		if len(list) == 2 && err == nil {
			f.equal(
				"the sessions of all users, a page of them",
				[]tokens.ID{list[0].ID, list[1].ID},
				[]tokens.ID{bare.ID, none.ID},
			)
		} else {
			t.Errorf("the sessions of all users: %d, %v", len(list), err)
		}
		return err
	})
	f.update(func(tx tokens.Tx) error {
		if err := tx.InsertPageSession(tokens.SessionKey{1}, bare); !errors.Is(err, tokens.ErrTaken) {
			t.Errorf("a key that is taken: %v", err)
		}
		return nil
	})

	later := f.now.Add(10 * time.Minute)
	for _, v := range []tokens.Visit{{Time: later}, {Time: f.now}, {Draft: []byte("typed")}} {
		if err := f.st.RecordVisit(f.ctx, tokens.SessionKey{2}, v); err != nil {
			t.Fatal(err)
		}
	}
	bare.SeenTime, bare.Draft = later, []byte("typed")
	got, _ := read(2)
	f.equal("a session after its use", got, bare)
	if err := f.st.RecordVisit(f.ctx, tokens.SessionKey{2}, tokens.Visit{Draft: []byte{}}); err != nil {
		t.Fatal(err)
	}
	if got, _ = read(2); got.Draft != nil {
		t.Errorf("the draft is %q", got.Draft)
	}
	if err := f.st.RecordVisit(f.ctx, tokens.SessionKey{9}, tokens.Visit{Time: later, Draft: []byte("x")}); err != nil {
		t.Errorf("a use of no session: %v", err)
	}

	end := func(user string, id, except tokens.ID, at time.Time) (n int) {
		f.update(func(tx tokens.Tx) (err error) { n, err = tx.EndPageSessions(user, id, except, at); return err },
			tokens.Event{User: user, Action: tokens.ActionSessionEnd})
		return n
	}
	f.equal("ended of another user's", end("other", full.ID, 0, f.now), 0)
	f.equal("ended by id", end("u", full.ID, 0, f.now), 1)
	f.equal("ended again", end("u", full.ID, 0, later), 0)
	got, _ = read(1)
	f.equal("the first end", got.EndTime, f.now)
	f.equal("ended but one", end("u", 0, none.ID, f.now), 2) // the expired one too
	f.equal("what is left", f.sessions("u"), []tokens.ID{none.ID})
	f.equal("all ended", end("u", 0, 0, f.now), 1)
	f.equal("another user's", len(f.sessions("other")), 1)
}

func testHandoffs(t *testing.T, f *fixture) {
	h := tokens.Handoff{
		User:              "u",
		Service:           "crm",
		ReturnURL:         "https://a.example/",
		ExpireTime:        f.now.Add(time.Minute),
		SessionExpireTime: f.now.Add(time.Hour),
	}
	plain := h
	plain.ReturnURL, plain.Service = "", ""
	event := tokens.Event{User: "u", Action: tokens.ActionSessionHandoff}
	f.update(func(tx tokens.Tx) error {
		return errors.Join(tx.InsertHandoff(tokens.SessionKey{1}, h), tx.InsertHandoff(tokens.SessionKey{2}, plain))
	}, event)
	read := func(key byte, at time.Time) (got tokens.Handoff, err error) {
		f.view(func(tx tokens.ReadTx) error { got, err = tx.Handoff(tokens.SessionKey{key}, at); return nil })
		return got, err
	}
	use := func(key byte, at time.Time) (err error) {
		f.update(func(tx tokens.Tx) error { err = tx.UseHandoff(tokens.SessionKey{key}, at); return nil })
		return err
	}
	for key, want := range map[byte]tokens.Handoff{1: h, 2: plain} {
		got, err := read(key, f.now)
		if err != nil {
			t.Fatal(err)
		}
		f.equal("a hand-off", got, want)
	}
	if err := use(1, h.ExpireTime); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("used too late: %v", err)
	}
	f.update(func(tx tokens.Tx) error { return tx.UseHandoff(tokens.SessionKey{1}, f.now) }, event)
	if err := use(1, f.now); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("used again: %v", err)
	}
	for _, at := range []struct {
		key byte
		at  time.Time
	}{{1, f.now}, {2, h.ExpireTime}, {3, f.now}} {
		if _, err := read(at.key, at.at); !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("hand-off %d is found: %v", at.key, err)
		}
	}
	f.update(func(tx tokens.Tx) error {
		if err := tx.InsertHandoff(tokens.SessionKey{2}, h); !errors.Is(err, tokens.ErrTaken) {
			t.Errorf("a key that is taken: %v", err)
		}
		return nil
	})
}
