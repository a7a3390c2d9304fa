package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"patd/store/internal/db"
	"patd/store/usage"
	"patd/tokens"
)

// The details of a token's uses are a text of lines:
//
//	s SCOPE DAY COUNT        uses of a scope; the day is that of the last one, in days since 1970
//	n DAY COUNT              uses whose service did not say what it required
//	a MICROS ADDRESS SERVICE a source, the newest first; the address is - where it is not known
//
// A line that a later version may write, of another kind, is left out.

const (
	selectDetail = `SELECT detail FROM use_details WHERE token_id = ?`

	putDetail = `INSERT INTO use_details (token_id, detail) VALUES (?, ?)
ON CONFLICT (token_id) DO UPDATE SET detail = excluded.detail`

	// Where other servers write too, rows are there and locked, in the order of ids, before they are read.
	addDetails = `INSERT INTO use_details (token_id, detail) SELECT v.id, '' FROM unnest(CAST(?1 AS bigint[])) AS v (id)
ORDER BY v.id ON CONFLICT (token_id) DO NOTHING`

	lockDetails = `SELECT token_id, detail FROM use_details WHERE token_id = ANY (CAST(?1 AS bigint[])) ORDER BY token_id FOR UPDATE`

	updateDetails = `UPDATE use_details SET detail = v.detail
FROM unnest(CAST(?1 AS bigint[]), CAST(?2 AS text[])) AS v (id, detail) WHERE token_id = v.id`

	selectDetails = `SELECT token_id, detail FROM use_details WHERE token_id = ANY (CAST(?1 AS bigint[]))`

	selectDetailsSince = `SELECT begin_us FROM use_details_since`
)

const writeScopeUses = "write the uses of scopes"

// writeDetails adds what was recorded to what is stored.
func (s *Store) writeDetails(ctx context.Context, batch []usage.Detailed) error {
	return s.transact(ctx, writeScopeUses, func(t *tx) error {
		if t.c.Dialect().Remote {
			return t.writeAllDetails(batch)
		}
		for _, one := range batch {
			var known string
			err := t.one(writeScopeUses, selectDetail, []any{&known}, int64(one.ID))
			if err != nil && !errors.Is(err, tokens.ErrNotFound) {
				return err
			}
			if _, err := t.exec(writeScopeUses, putDetail, int64(one.ID), mergedDetail(known, one.Detail)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *tx) writeAllDetails(batch []usage.Detailed) error {
	ids, texts := make([]int64, len(batch)), make([]string, len(batch))
	for i, one := range batch {
		ids[i] = int64(one.ID)
	}
	if _, err := t.exec(writeScopeUses, addDetails, ids); err != nil {
		return err
	}
	err := t.each(writeScopeUses, lockDetails, func(rows *sql.Rows) error {
		var id int64
		var known string
		if err := rows.Scan(&id, &known); err != nil {
			return err
		}
		if i := slices.Index(ids, id); i >= 0 {
			texts[i] = known
		}
		return nil
	}, ids)
	if err != nil {
		return err
	}
	for i, one := range batch {
		texts[i] = mergedDetail(texts[i], one.Detail)
	}
	_, err = t.exec(writeScopeUses, updateDetails, ids, texts)
	return err
}

// mergedDetail adds details to those that are stored.
func mergedDetail(stored string, add usage.Detail) string {
	d := parseDetail(stored)
	d.Add(add)
	slices.SortFunc(d.Scopes, func(a, b usage.ScopeUse) int { return strings.Compare(a.Scope, b.Scope) })
	slices.SortFunc(d.Sources, func(a, b usage.Source) int { return int(b.Micros - a.Micros) })
	d.Sources = d.Sources[:min(len(d.Sources), tokens.MaxSources)]
	var b strings.Builder
	for _, u := range d.Scopes {
		if u.Scope == "" {
			fmt.Fprintf(&b, "n %d %d\n", u.Day, u.Count)
		} else {
			fmt.Fprintf(&b, "s %s %d %d\n", u.Scope, u.Day, u.Count)
		}
	}
	for _, from := range d.Sources {
		ip := "-"
		if from.IP.IsValid() {
			ip = from.IP.String()
		}
		fmt.Fprintf(&b, "a %d %s %s\n", from.Micros, ip, from.Service)
	}
	return b.String()
}

func parseDetail(text string) (d usage.Detail) {
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		number := func(i int) int64 {
			n, _ := strconv.ParseInt(f[i], 10, 64) // what cannot be read counts as none
			return n
		}
		switch {
		case f[0] == "s" && len(f) == 4:
			d.AddScope(usage.ScopeUse{Scope: f[1], Day: number(2), Count: number(3)})
		case f[0] == "n" && len(f) == 3:
			d.AddScope(usage.ScopeUse{Day: number(1), Count: number(2)})
		case f[0] == "a" && len(f) == 4:
			ip, _ := netip.ParseAddr(f[2])
			d.AddSource(usage.Source{IP: ip, Service: f[3], Micros: number(1)})
		}
	}
	return d
}

// ScopeUses implements tokens.TokenReader.
func (t *readTx) ScopeUses(ids []tokens.ID) (map[tokens.ID]tokens.ScopeUses, error) {
	const op = "read the uses of scopes"
	out := make(map[tokens.ID]tokens.ScopeUses, len(ids))
	if t.c.Dialect().Remote && len(ids) > 1 {
		raw := make([]int64, len(ids))
		for i, id := range ids {
			raw[i] = int64(id)
		}
		return out, t.each(op, selectDetails, func(rows *sql.Rows) error {
			var id int64
			var text string
			err := rows.Scan(&id, &text)
			out[tokens.ID(id)] = scopeUses(text)
			return err
		}, raw)
	}
	for _, id := range ids {
		var text string
		err := t.one(op, selectDetail, []any{&text}, int64(id))
		if errors.Is(err, tokens.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out[id] = scopeUses(text)
	}
	return out, nil
}

func scopeUses(text string) (out tokens.ScopeUses) {
	d := parseDetail(text)
	for _, u := range d.Scopes {
		one := tokens.ScopeUse{Scope: u.Scope, Day: time.Unix(u.Day*24*60*60, 0).UTC(), Count: u.Count}
		if u.Scope == "" {
			out.Unscoped = one
			continue
		}
		out.Scopes = append(out.Scopes, one)
	}
	for _, s := range d.Sources {
		out.Sources = append(out.Sources, tokens.UseSource{IP: s.IP, Service: s.Service, Time: db.Instant(s.Micros)})
	}
	return out
}

// UsesSince implements tokens.TokenReader.
func (t *readTx) UsesSince() (time.Time, error) {
	var us int64
	err := t.one("read since when uses are recorded", selectDetailsSince, []any{&us})
	if errors.Is(err, tokens.ErrNotFound) {
		return time.Time{}, nil
	}
	return db.Instant(us), err
}
