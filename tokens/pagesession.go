package tokens

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/chacha20poly1305"

	"patd/tokens/secret"
)

// Lifetimes of sessions of the page.
const (
	PageSessionIdle = time.Hour      // a session that was not used for this long has ended
	PageSessionMax  = 12 * time.Hour // the longest one
	visitEvery      = time.Minute    // a use is recorded when the last record is older
)

// Limits of sessions of the page.
const (
	maxAgent    = 200 // characters of the browser's name that are kept
	maxDraft    = 64 << 10
	maxSessions = 100 // listed
	pageBytes   = 32  // of a session's secret and of a hand-off's code
)

// SessionKey finds a session of the page or a hand-off: a keyed digest of 256 random bits, which only the browser has.
type SessionKey [32]byte

// PageSession is one person's sign-in to the page, in one browser.
type PageSession struct {
	ID          ID // public; it grants nothing
	User        string
	Service     string     // that handed the user over; empty: the user signed in at the provider
	ReturnURL   string     // where the user goes when a handed-over session ends; empty: nowhere
	Permissions Permission // of an operator
	Features    []string   // that the user's credential lists; nil: it has no list
	IssueTime   time.Time
	SeenTime    time.Time // of the last use, to the minute
	ExpireTime  time.Time
	EndTime     time.Time // zero: it was not ended
	IP          netip.Addr
	Agent       string // the browser's name for itself
	Hint        []byte // sealed; for the provider when the user signs out; nil: none
	Draft       []byte // sealed; what was typed into a form when the session had ended; nil: nothing
}

// live reports whether the session is good at an instant. The user's state is not part of it.
func (v PageSession) live(now time.Time) bool {
	return v.EndTime.IsZero() && now.Before(v.ExpireTime) && now.Before(v.SeenTime.Add(PageSessionIdle+visitEvery))
}

// Visit is an entry for RecordVisit.
type Visit struct {
	Time  time.Time // zero: not a use
	Draft []byte    // nil: the draft stays; empty: it is dropped
}

// SignIn asks for a session of the page for a user whom the provider has signed in.
type SignIn struct {
	Permissions Permission // of an operator
	Agent       string
	Hint        string // for the provider when the user signs out; empty: none
	Replaces    Secret // of the session that the browser had; empty: none
}

// SignedIn is a session of the page, as one request sees it.
type SignedIn struct {
	Session PageSession
	// Actor is the caller of what the request does.
	Actor Actor
	// Draft is what was typed into a form of an earlier session of the same user; empty: nothing.
	Draft string
	// Secret is the session's: only the browser's cookie has it.
	Secret Secret
}

// Hint returns what SignIn gave for the provider; empty: nothing.
func (v SignedIn) Hint() string {
	text, _ := openPage("hint", v.Secret, v.Session.User, v.Session.Hint) // what cannot be read is as good as nothing
	return text
}

var errSessionEnded = Fail(CodeUnauthenticated, "SESSION_ENDED", "the session has ended; sign in again")

// sessionKeys returns the keys under which a session or a hand-off may be stored, the one for new ones first.
func (s *Service) sessionKeys(purpose string, text Secret) []SessionKey {
	var found []SessionKey
	for _, k := range s.keys.Get().All() {
		found = append(found, SessionKey(k.Derive("page").Sum(framed(purpose, text.Reveal()))))
	}
	return found
}

// newPageSecret returns 256 random bits as text.
func (s *Service) newPageSecret() (Secret, error) {
	var raw [pageBytes]byte
	if _, err := io.ReadFull(s.rand, raw[:]); err != nil {
		return Secret{}, fmt.Errorf("make a secret of the page: %w", err)
	}
	return secret.NewSecret(base64.RawURLEncoding.EncodeToString(raw[:])), nil
}

// pageSecretForm reports whether a text may be one that newPageSecret returned.
func pageSecretForm(text Secret) bool {
	raw, err := decodeBase64(text.Reveal())
	return err == nil && len(raw) == pageBytes
}

// findSession reads the session of a secret.
func (s *Service) findSession(tx ReadTx, text Secret) (SessionKey, PageSession, error) {
	if !pageSecretForm(text) {
		return SessionKey{}, PageSession{}, ErrNotFound
	}
	for _, key := range s.sessionKeys("session", text) {
		v, err := tx.PageSession(key)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		return key, v, err
	}
	return SessionKey{}, PageSession{}, ErrNotFound
}

// PageSession returns the session of a secret, and records its use. The secret of a session that has ended, or whose
// user is suspended, is SESSION_ENDED with an EndedError, and the session is returned too. An unknown secret is
// CodeUnauthenticated with ErrUnknownCredential.
func (s *Service) PageSession(ctx context.Context, text Secret, peer Peer) (SignedIn, error) {
	var (
		key     SessionKey
		v       PageSession
		refused error
	)
	now := s.Now()
	err := s.store.View(ctx, func(tx ReadTx) error {
		var err error
		if key, v, err = s.findSession(tx, text); err != nil {
			return err
		}
		refused = Actor{User: v.User}.userStands(tx)
		return nil
	})
	switch {
	case errors.Is(err, ErrNotFound):
		return SignedIn{}, because(unauthenticated("the session is not known"), ErrUnknownCredential)
	case err != nil:
		return SignedIn{}, err
	}
	in := SignedIn{
		Session: v,
		Secret:  text,
		Actor: Actor{Kind: UserActor, User: v.User, Features: v.Features, Permissions: v.Permissions,
			Peer: peer, session: &key},
	}
	switch {
	case refused != nil && !errors.Is(refused, errUserSuspended):
		return SignedIn{}, refused
	case refused != nil || !v.live(now):
		ended := *errSessionEnded
		return in, because(&ended, &EndedError{Holder: in.Actor})
	}
	in.Draft, _ = openPage("draft", text, v.User, v.Draft)
	if now.Sub(v.SeenTime) >= visitEvery {
		if err := s.store.RecordVisit(ctx, key, Visit{Time: now}); err != nil {
			return SignedIn{}, err
		}
	}
	return in, nil
}

// BeginPageSession makes a session for a user whom the provider has signed in, and ends the one that the browser had.
// USER_SUSPENDED if the user is suspended.
func (s *Service) BeginPageSession(ctx context.Context, a Actor, r SignIn) (SignedIn, error) {
	if a.Kind != UserActor {
		return SignedIn{}, denied("only a signed-in user has a session of the page")
	}
	text, err := s.newPageSecret()
	if err != nil {
		return SignedIn{}, err
	}
	var in SignedIn
	err = s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		v := PageSession{
			User:        a.User,
			Permissions: r.Permissions,
			Features:    a.Features,
			ExpireTime:  now.Add(PageSessionMax),
		}
		if r.Hint != "" {
			if v.Hint, err = s.sealPage("hint", text, a.User, r.Hint); err != nil {
				return nil, err
			}
		}
		var events []Event
		in, events, err = s.beginSession(tx, a, v, text, r.Agent, r.Replaces, now)
		return events, err
	})
	if err != nil {
		return SignedIn{}, s.refused(ctx, a, Refusal{Action: ActionSessionCreate, User: a.User}, err)
	}
	return in, nil
}

// beginSession inserts a session, and ends the one that it replaces. A draft that the same user left there is handed
// on.
func (s *Service) beginSession(
	tx Tx,
	a Actor,
	v PageSession,
	text Secret,
	agent string,
	replaces Secret,
	now time.Time,
) (SignedIn, []Event, error) {
	events := make([]Event, 0, 2)
	_, old, err := s.findSession(tx, replaces)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return SignedIn{}, nil, fmt.Errorf("read the session of a browser: %w", err)
	default:
		n, err := tx.EndPageSessions(old.User, old.ID, 0, now)
		if err != nil {
			return SignedIn{}, nil, fmt.Errorf("end the session of a browser: %w", err)
		}
		if n > 0 {
			e := a.event(now, ActionSessionEnd)
			e.User, e.Detail = old.User, "replaced by one of "+v.User
			events = append(events, e)
		}
	}
	in := SignedIn{Secret: text}
	if draft, err := openPage("draft", replaces, v.User, old.Draft); err == nil && old.User == v.User {
		if v.Draft, err = s.sealPage("draft", text, v.User, draft); err != nil {
			return SignedIn{}, nil, err
		}
		in.Draft = draft
	}
	v.IssueTime, v.SeenTime, v.IP, v.Agent = now, now, a.Peer.IP, shortAgent(agent)
	if v.ID, err = secret.NewID(now, s.rand); err != nil {
		return SignedIn{}, nil, err
	}
	key := s.sessionKeys("session", text)[0]
	if err := tx.InsertPageSession(key, v); err != nil {
		return SignedIn{}, nil, fmt.Errorf("add a session: %w", err)
	}
	a.session = &key
	in.Session, in.Actor = v, a
	e := a.event(now, ActionSessionCreate)
	e.User, e.Detail = v.User, "session "+v.ID.String()
	if v.Service != "" {
		e.Detail += ", handed over by service:" + v.Service
	}
	return in, append(events, e), nil
}

// EndPageSessions ends sessions of the caller: the one with the id, or all but the caller's own if id is empty. It
// returns how many it ended.
func (s *Service) EndPageSessions(ctx context.Context, a Actor, id string, own ID) (int, error) {
	if a.Kind != UserActor {
		return 0, denied("only a signed-in user has sessions of the page")
	}
	var one, except ID
	if id == "" {
		except = own
	} else {
		var err error
		if one, err = secret.ParseID(id); err != nil {
			return 0, notFound("session")
		}
	}
	n := 0
	err := s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		var err error
		if n, err = tx.EndPageSessions(a.User, one, except, now); err != nil || n == 0 {
			return nil, err
		}
		e := a.event(now, ActionSessionEnd)
		e.User, e.Detail = a.User, fmt.Sprintf("%d other sessions", n)
		if one != 0 {
			e.Detail = "session " + one.String()
		}
		return []Event{e}, nil
	})
	return n, err
}

// PageSessions lists the caller's sessions, newest first, at most 100.
func (s *Service) PageSessions(ctx context.Context, a Actor) ([]PageSession, error) {
	if a.Kind != UserActor {
		return nil, denied("only a signed-in user has sessions of the page")
	}
	var found []PageSession
	now := s.Now()
	err := s.store.View(ctx, func(tx ReadTx) error {
		all, err := tx.PageSessions(a.User, now, maxSessions)
		for _, v := range all {
			if v.live(now) {
				found = append(found, v)
			}
		}
		return err
	})
	return found, err
}

// KeepDraft keeps what was typed into a form whose session has ended, for the same user's next session in the same
// browser; an empty draft drops it. It keeps nothing, without an error, if the session is not known or the draft is
// over 64 KiB.
func (s *Service) KeepDraft(ctx context.Context, text Secret, draft string) error {
	if len(draft) > maxDraft {
		return nil
	}
	var (
		key SessionKey
		v   PageSession
	)
	err := s.store.View(ctx, func(tx ReadTx) error {
		var err error
		key, v, err = s.findSession(tx, text)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	sealed := []byte{}
	if draft != "" {
		if sealed, err = s.sealPage("draft", text, v.User, draft); err != nil {
			return err
		}
	}
	return s.store.RecordVisit(ctx, key, Visit{Draft: sealed})
}

// endSessions ends all of a user's sessions.
func endSessions(tx Tx, user string, now time.Time) error {
	if _, err := tx.EndPageSessions(user, 0, 0, now); err != nil {
		return fmt.Errorf("end a user's sessions: %w", err)
	}
	return nil
}

// sealPage seals a text that only the browser with the session's secret can have read again.
func (s *Service) sealPage(purpose string, of Secret, user, text string) ([]byte, error) {
	key := keyOf("patd page v1", purpose, of.Reveal())
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, fmt.Errorf("seal a text of the page: %w", err)
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(text)+aead.Overhead())
	if _, err := io.ReadFull(s.rand, nonce); err != nil {
		return nil, fmt.Errorf("seal a text of the page: %w", err)
	}
	return aead.Seal(nonce, nonce, []byte(text), []byte(user)), nil
}

// openPage opens what sealPage sealed.
func openPage(purpose string, of Secret, user string, sealed []byte) (string, error) {
	key := keyOf("patd page v1", purpose, of.Reveal())
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil || len(sealed) < aead.NonceSize() {
		return "", errors.New("open a text of the page: there is none")
	}
	n := aead.NonceSize()
	text, err := aead.Open(nil, sealed[:n], sealed[n:], []byte(user))
	if err != nil {
		return "", fmt.Errorf("open a text of the page: %w", err)
	}
	return string(text), nil
}

// shortAgent returns what is kept of a browser's name for itself: nothing if it holds a secret.
func shortAgent(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	if secret.MayContainSecret(s) || !utf8.ValidString(s) {
		return ""
	}
	return s[:min(len(s), maxAgent)]
}

// PageSessionReader reads who is signed in to the page.
type PageSessionReader interface {
	// PageSession reads a session, whatever its state. ErrNotFound. Sessions are kept until a day after their expiry.
	PageSession(key SessionKey) (PageSession, error)
	// PageSessions lists a user's sessions that have not been ended and expire after now, newest first, at most limit.
	PageSessions(user string, now time.Time, limit int) ([]PageSession, error)
	// AllPageSessions lists the sessions of all users that have not been ended, expire after now and have an id above
	// after, by id, at most limit.
	AllPageSessions(after ID, now time.Time, limit int) ([]PageSession, error)
	// Handoff reads a hand-off that was not used and expires after now. ErrNotFound.
	Handoff(key SessionKey, now time.Time) (Handoff, error)
}

// PageSessionWriter writes who is signed in to the page.
type PageSessionWriter interface {
	// InsertPageSession adds a session. ErrTaken when the key exists.
	InsertPageSession(key SessionKey, s PageSession) error
	// EndPageSessions ends a user's sessions: the one with the id, or all but the one with the id except, which may be
	// 0. It returns how many it ended; sessions that were ended before do not count.
	EndPageSessions(user string, id, except ID, at time.Time) (int, error)
	// InsertHandoff adds a hand-off. ErrTaken when the key exists.
	InsertHandoff(key SessionKey, h Handoff) error
	// UseHandoff marks a hand-off as used. ErrNotFound if no unused one that expires after at has that key.
	UseHandoff(key SessionKey, at time.Time) error
}
