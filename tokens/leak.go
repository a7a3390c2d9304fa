package tokens

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"patd/tokens/secret"
)

// Find is a text that was found where no secret should be.
type Find struct {
	Text Secret // may hold other text around a secret
	// Place is the kind of place, such as commit, and URL the address; empty: not known. What is not fit for the audit
	// log is left out of it.
	Place, URL string
}

// leakWorkers is how many secrets of one report are ended at once, so that they share transactions.
const leakWorkers = 8

// ReportLeaks revokes what each live secret in up to 1000 strings belongs to, services too, with the reason LEAKED. A
// string may hold other text around a secret. If one could not be revoked, the error is returned after the others were.
//
// Reasons: LEAKS_TOO_MANY, and outages.
func (s *Service) ReportLeaks(ctx context.Context, a Actor, secrets []Secret) error {
	if len(secrets) > MaxLeaks {
		return Invalid("LEAKS_TOO_MANY", "secrets", fmt.Sprintf("at most %d in a report", MaxLeaks))
	}
	finds := make([]Find, len(secrets))
	for i, text := range secrets {
		finds[i].Text = text
	}
	_, err := s.ReportFinds(ctx, a, finds)
	return err
}

// ReportFinds does as ReportLeaks does, and reports of each text whether it holds a secret that is or was one of this
// patd. Each live one has an event of ActionTokenLeaked, too, which says where it was found and what it could do. After
// an error, which says nothing about any text, the report is to be repeated.
func (s *Service) ReportFinds(ctx context.Context, a Actor, finds []Find) ([]bool, error) {
	a.presented = a.presented || a.Kind == Nobody || a.Kind == PartnerActor
	patience, cancel := context.WithTimeout(ctx, effectPatience)
	defer cancel()
	r := leakReport{Service: s, actor: a, patience: patience, ours: make([]bool, len(finds))}
	room := make(chan struct{}, leakWorkers)
	var working sync.WaitGroup
	for i, f := range finds {
		for found := range strings.FieldsFuncSeq(f.Text.Reveal(), between) {
			text := secret.NewSecret(found)
			kind, id, err := s.prefixes.Load().Parse(text)
			if err != nil {
				continue // it is no token, which is an answer
			}
			room <- struct{}{}
			working.Go(func() {
				defer func() { <-room }()
				defer r.recovered()
				r.record(i)(r.end(ctx, kind, id, text, f))
			})
		}
	}
	working.Wait()
	if r.panicked != nil {
		panic(r.panicked)
	}
	return r.ours, r.failed
}

// between reports whether r is a character that occurs in no secret.
func between(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

// leakReport is one report under way.
type leakReport struct {
	*Service
	actor    Actor
	patience context.Context // of all reads of features together

	mu       sync.Mutex
	ours     []bool
	failed   error
	panicked *workerPanic
}

// workerPanic is a panic of a worker, handed back to the caller with the stack that led to it.
type workerPanic struct {
	value any
	stack []byte
}

// Stack is the stack of the panic itself.
func (p *workerPanic) Stack() []byte { return p.stack }

// recovered keeps the panic of a worker.
func (r *leakReport) recovered() {
	if v := recover(); v != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.panicked = &workerPanic{v, debug.Stack()}
	}
}

// record returns a function that keeps what came of a secret in the text with that number.
func (r *leakReport) record(i int) func(ours bool, err error) {
	return func(ours bool, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ours[i] = r.ours[i] || ours
		if err != nil && r.failed == nil {
			r.failed = fmt.Errorf("end a leaked secret: %w", err)
		}
	}
}

// end revokes what a secret belongs to if it is live, and reports whether it is or was one of this patd.
func (r *leakReport) end(ctx context.Context, kind secret.Kind, id ID, text Secret, at Find) (ours bool, err error) {
	f, err := r.findLive(ctx, kind, id, text)
	if errors.Is(err, ErrNotFound) {
		return r.unprovable(ctx, kind, id, text)
	}
	if err != nil || f.revoke == nil {
		return err == nil, err
	}
	note, err := r.note(ctx, f, at)
	if err != nil {
		return true, err
	}
	return true, f.revoke(ctx, r.actor, ending{reason: "LEAKED", note: note})
}

// unprovable reports whether a secret has the id of a token whose digest is under a key that was retired: it cannot be
// compared any more, and has ended.
func (r *leakReport) unprovable(ctx context.Context, kind secret.Kind, id ID, text Secret) (bool, error) {
	if kind != secret.KindPersonal {
		return false, nil
	}
	c, err := r.store.Lookup(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	keys := r.keys.Get()
	for _, st := range c.Secrets {
		if _, err := keys.Match(text, st.Hash); err != nil {
			return true, nil //nolint:nilerr // which is what the caller asks
		}
	}
	return false, nil
}

// note returns what makes the event of a leak. A source of features that does not answer holds up no revocation.
func (r *leakReport) note(
	ctx context.Context,
	f FoundSecret,
	at Find,
) (func(ReadTx, time.Time) ([]Event, error), error) {
	leak := Leak{What: f.what, Place: at.Place, URL: at.URL}.fit()
	if r.actor.Kind == PartnerActor {
		leak.By = r.actor.Name
	}
	e := Event{Action: ActionTokenLeaked, TokenID: f.TokenID, Service: f.service}
	if f.service != "" {
		leak.Effective = f.granted
		return func(_ ReadTx, now time.Time) ([]Event, error) { return r.event(e, leak, now), nil }, nil
	}
	var held *Held
	if !r.features.Local() {
		c, err := r.store.Lookup(ctx, f.TokenID)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		if h, err := r.features.Features(r.patience, c.User, false); err == nil {
			held = &h
		}
	}
	return func(tx ReadTx, now time.Time) ([]Event, error) {
		t, err := tx.Token(f.TokenID)
		if toEnd(err) != nil {
			return nil, fmt.Errorf("read token %s: %w", f.TokenID, err)
		}
		of, known := leak, held
		if known == nil && r.features.Local() {
			if u, err := tx.User(t.User); err == nil {
				if h, err := r.features.Features(ctx, u, false); err == nil {
					known = &h
				}
			}
		}
		e.User, of.LastUsed = t.User, t.LastUsed
		granted := t.Scopes
		if f.granted != nil {
			granted, _ = Effective(f.granted, t.Scopes)
		}
		if of.Effective = granted; known != nil {
			of.Effective, of.Suspended = inEffect(granted, *known)
		} else {
			of.Unknown = true
		}
		return r.event(e, of, now), nil
	}, nil
}

// event completes the event of a leak.
func (r *leakReport) event(e Event, leak Leak, now time.Time) []Event {
	of := r.actor.event(now, e.Action)
	of.User, of.TokenID, of.Service, of.Detail = e.User, e.TokenID, e.Service, leak.String()
	return []Event{of}
}
