package tokens

import (
	"fmt"
	"time"
)

// recentUses is what is known of the uses of a token since a time.
type recentUses struct {
	since time.Time
	// any says that the token was used, and unknown that it is not known with what: a service did not say what it
	// needed, or the uses of the token were not recorded by scope for so long.
	any, unknown bool
	scopes       ScopeUses
}

// with reports whether the token was used with a scope. May says that it may have been.
func (u *recentUses) with(scope string) (was, may bool) {
	was = u.any && !u.scopes.Of(scope).before(u.since)
	return was, was || u.any && u.unknown
}

// readUses reads the uses of those tokens of a batch that were used lately.
func (w *impact) readUses(tx ReadTx, batch []Token) error {
	ids := make([]ID, 0, len(batch))
	for i := range batch {
		if w.lately(&batch[i]) {
			ids = append(ids, batch[i].ID)
		}
	}
	w.uses = nil
	if len(ids) == 0 {
		return nil
	}
	var err error
	if w.uses, err = tx.ScopeUses(ids); err != nil {
		return fmt.Errorf("read the uses of scopes: %w", err)
	}
	return nil
}

// lately reports whether a token was used lately.
func (w *impact) lately(t *Token) bool {
	return !t.LastUsed.Time.IsZero() && !t.LastUsed.Time.Before(w.out.Since)
}

// usesOf returns the uses of a token of the batch.
func (w *impact) usesOf(t *Token) recentUses {
	u := recentUses{since: w.out.Since, any: w.lately(t), scopes: w.uses[t.ID].withSince(*t, w.began)}
	recorded := !u.scopes.Since.After(w.out.Since)
	if u.any && !recorded {
		w.out.ByScope = false
	}
	u.unknown = !recorded || !u.scopes.Unscoped.before(w.out.Since)
	return u
}
