package tokens

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"patd/tokens/secret"
)

// BindKeys checks that a store and a key file belong together, before anything is served: every key of the store that
// is not retired must be in the file and be the same. Keys and a personal prefix that are new to the store are added to
// it. A store without any key is new: its rows are sealed from the start. It returns all prefixes whose secrets are
// valid.
func BindKeys(ctx context.Context, st Store, ks *Keys, personalPrefix string, now time.Time) (Prefixes, error) {
	if personalPrefix == "" {
		personalPrefix = secret.PrefixPersonal
	}
	var earlier []string
	var order []KeyRecord
	complete, fresh := false, false
	look := func(tx ReadTx) (newKeys []string, err error) {
		known, err := tx.Keys()
		if err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
		if err := ks.Verify(known); err != nil {
			return nil, err
		}
		if earlier, err = tx.Prefixes(); err != nil {
			return nil, fmt.Errorf("read prefixes: %w", err)
		}
		fresh = len(known) == 0
		order = slices.Clone(known)
		for _, n := range ks.Names() {
			if !slices.ContainsFunc(known, func(r KeyRecord) bool { return r.Name == n }) {
				newKeys = append(newKeys, n)
			}
		}
		for _, n := range newKeys {
			order = append(order, KeyRecord{Name: n, CreateTime: now})
		}
		complete = len(newKeys) == 0 && slices.Contains(earlier, personalPrefix)
		return newKeys, nil
	}
	p, err := secret.NewPrefixes(personalPrefix)
	if err != nil {
		return Prefixes{}, err
	}
	err = st.View(ctx, func(tx ReadTx) error {
		_, err := look(tx)
		return err
	})
	if err == nil && !complete {
		err = st.Update(ctx, func(tx Tx) ([]Event, error) {
			add, err := look(tx)
			if err != nil {
				return nil, err
			}
			newPrefix := p.Current()
			if slices.Contains(earlier, newPrefix) {
				newPrefix = ""
			}
			events, err := bind(tx, ks, add, newPrefix, now)
			if err == nil && fresh {
				err = tx.SealRows(now)
			}
			return events, err
		})
	}
	if err != nil {
		return Prefixes{}, err
	}
	if keeper, ok := st.(RowKeeper); ok {
		if err := keeper.UseRowKeys(ctx, ks); err != nil {
			return Prefixes{}, err
		}
	}
	ks.Learn(order)
	return secret.NewPrefixes(personalPrefix, earlier...)
}

// bind adds keys and a prefix, if any, to a store.
func bind(tx Tx, ks *Keys, names []string, prefix string, now time.Time) ([]Event, error) {
	var events []Event
	for _, n := range names {
		check, ok := ks.Check(n)
		if !ok {
			return nil, fmt.Errorf("add key %s: it is not in the key file", n)
		}
		if err := tx.PutKey(KeyRecord{Name: n, Check: check, CreateTime: now}); err != nil {
			return nil, fmt.Errorf("add key %s: %w", n, err)
		}
		e := Operator().event(now, ActionKeyAdd)
		e.Detail = n
		events = append(events, e)
	}
	if prefix == "" {
		return events, nil
	}
	if err := tx.PutPrefix(prefix); err != nil {
		return nil, fmt.Errorf("remember prefix %s: %w", prefix, err)
	}
	e := Operator().event(now, ActionPrefixAdd)
	e.Detail = prefix
	return append(events, e), nil
}

// minKeyAge is how long a newer key must have been in force before an older one can be retired: by then every running
// server has noticed the change of the key file.
const minKeyAge = time.Minute

// RetireKey marks a key as retired, so that it may leave the key file. It is refused when there is no newer key
// (KEY_CURRENT), while none has been in force for a minute (KEY_TOO_RECENT), and while a live digest is under it
// (KEY_IN_USE). What no secret is needed for is moved to the current key first: checksums of rows, and the sealed
// secrets of webhooks, which are so opened with the keys for the last time. ks is the key file, with the key.
func RetireKey(ctx context.Context, st Store, ks *Keys, name string, now time.Time) error {
	err := retireKey(ctx, st, ks, name, now)
	if keeper, ok := st.(RowKeeper); ok && errors.Is(err, errRowsUnder) {
		if _, err := keeper.MoveChecksums(ctx, name); err != nil {
			return fmt.Errorf("move the checksums under key %s: %w", name, err)
		}
		err = retireKey(ctx, st, ks, name, now)
	}
	return err
}

var errRowsUnder = errors.New("rows have checksums under the key")

func retireKey(ctx context.Context, st Store, ks *Keys, name string, now time.Time) error {
	return st.Update(ctx, func(tx Tx) ([]Event, error) {
		known, err := tx.Keys()
		if err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
		i := slices.IndexFunc(known, func(r KeyRecord) bool { return r.Name == name })
		if i < 0 {
			return nil, notFound("key")
		}
		k := known[i]
		if !k.RetireTime.IsZero() {
			return nil, nil
		}
		if err := succeeded(name, known[i+1:], now); err != nil {
			return nil, err
		}
		if err := resealWebhooks(tx, ks, name, now, rand.Reader); err != nil {
			return nil, err
		}
		use, err := tx.KeyUse(now)
		if err != nil {
			return nil, fmt.Errorf("count digests: %w", err)
		}
		if n := use[name]; n > 0 {
			return nil, Fail(
				CodePrecondition,
				"KEY_IN_USE",
				fmt.Sprintf("live digests under key %s: %d; each moves to the current key when "+
					"its token is next seen: wait for that, or until the tokens expire, or revoke them", name, n),
			)
		}
		if n, err := tx.RowsUnder(name); err != nil {
			return nil, fmt.Errorf("count checksums: %w", err)
		} else if n > 0 {
			return nil, because(
				Fail(CodePrecondition, "KEY_IN_USE", fmt.Sprintf("rows whose checksum is under key %s: %d; they were "+
					"written after the others were moved: see that every server has the present key file, and try again", name, n)),
				errRowsUnder,
			)
		}
		k.RetireTime = now
		if err := tx.PutKey(k); err != nil {
			return nil, fmt.Errorf("retire key %s: %w", name, err)
		}
		e := Operator().event(now, ActionKeyRetire)
		e.Detail = name
		return []Event{e}, nil
	})
}

// succeeded refuses to retire a key that no newer key can replace yet.
func succeeded(name string, newer []KeyRecord, now time.Time) error {
	i := slices.IndexFunc(newer, func(r KeyRecord) bool { return r.RetireTime.IsZero() })
	if i < 0 {
		return Fail(
			CodePrecondition,
			"KEY_CURRENT",
			fmt.Sprintf("key %s is the newest one; rotate the keys first", name),
		)
	}
	next := newer[i] // the oldest of them
	age := max(now.Sub(next.CreateTime).Truncate(time.Second), 0)
	if age >= minKeyAge {
		return nil
	}
	return Fail(
		CodePrecondition,
		"KEY_TOO_RECENT",
		fmt.Sprintf("key %s has been in force for only %s and running servers may not have noticed it: try again in %s",
			next.Name, age, minKeyAge-age),
	)
}

// SealRows records that every row of a store has a checksum.
func SealRows(ctx context.Context, st Store, now time.Time) error {
	return st.Update(ctx, func(tx Tx) ([]Event, error) {
		if err := tx.SealRows(now); err != nil {
			return nil, fmt.Errorf("seal the rows: %w", err)
		}
		return []Event{Operator().event(now, ActionRowsSeal)}, nil
	})
}
