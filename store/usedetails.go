package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
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
	putDetails = `INSERT INTO use_details (token_id, detail) VALUES `
	setDetail  = ` ON CONFLICT (token_id) DO UPDATE SET detail = excluded.detail`

	// Where other servers write too, rows are there and locked, in the order of ids, before they are read.
	addDetails = `INSERT INTO use_details (token_id, detail) SELECT v.id, '' FROM unnest(CAST(?1 AS bigint[])) AS v (id)
ORDER BY v.id ON CONFLICT (token_id) DO NOTHING`

	lockDetails = `SELECT token_id, detail FROM use_details WHERE token_id = ANY (CAST(?1 AS bigint[])) ORDER BY token_id FOR UPDATE`

	updateDetails = `UPDATE use_details SET detail = v.detail
FROM unnest(CAST(?1 AS bigint[]), CAST(?2 AS text[])) AS v (id, detail) WHERE token_id = v.id`

	selectOneDetail = `SELECT token_id, detail FROM use_details WHERE token_id = ?`

	selectDetails = `SELECT token_id, detail FROM use_details WHERE token_id = ANY (CAST(?1 AS bigint[]))`

	selectDetailsSince = `SELECT begin_us FROM use_details_since`
)

const writeScopeUses = "write the uses of scopes"

// detailsAtOnce is how many tokens one statement reads, and one writes, where the store is a file.
const detailsAtOnce = 50

// Statements for one token, and for many.
var (
	putOneDetail = putDetails + `(?, ?)` + setDetail

	selectManyDetails = `WITH v (id) AS (VALUES ` + strings.Repeat(`(?), `, detailsAtOnce-1) + `(?))
SELECT d.token_id, d.detail FROM v CROSS JOIN use_details d ON d.token_id = v.id`

	putManyDetails = putDetails + strings.Repeat(`(?, ?), `, detailsAtOnce-1) + `(?, ?)` + setDetail
)

// writeDetails adds what was recorded, in the order of ids, to what is stored.
func (s *Store) writeDetails(ctx context.Context, batch []usage.Detailed) error {
	return s.transact(ctx, writeScopeUses, func(t *tx) error {
		if t.c.Dialect().Remote {
			return t.writeAllDetails(batch)
		}
		return inStatements(batch, detailsAtOnce, t.writeDetailsOf)
	})
}

// writeDetailsOf reads and writes the details of one token, or of detailsAtOnce.
func (t *tx) writeDetailsOf(batch []usage.Detailed) error {
	read, write := selectManyDetails, putManyDetails
	if len(batch) == 1 {
		read, write = selectOneDetail, putOneDetail
	}
	args := make([]any, 0, 2*detailsAtOnce)
	for i := range batch {
		args = append(args, int64(batch[i].ID))
	}
	texts, err := t.mergedDetails(batch, read, args...)
	if err != nil {
		return err
	}
	args = args[:0]
	for i, text := range texts {
		args = append(args, int64(batch[i].ID), text)
	}
	_, err = t.exec(writeScopeUses, write, args...)
	return err
}

func (t *tx) writeAllDetails(batch []usage.Detailed) error {
	ids := make([]int64, len(batch))
	for i, one := range batch {
		ids[i] = int64(one.ID)
	}
	if _, err := t.exec(writeScopeUses, addDetails, ids); err != nil {
		return err
	}
	texts, err := t.mergedDetails(batch, lockDetails, ids)
	if err != nil {
		return err
	}
	_, err = t.exec(writeScopeUses, updateDetails, ids, texts)
	return err
}

// mergedDetails returns the texts of a batch, with what a statement finds of it in the store.
func (t *tx) mergedDetails(batch []usage.Detailed, read string, args ...any) ([]string, error) {
	texts := make([]string, len(batch))
	err := t.each(writeScopeUses, read, func(rows *sql.Rows) error {
		var id int64
		var known string
		if err := rows.Scan(&id, &known); err != nil {
			return err
		}
		if i, found := slices.BinarySearchFunc(batch, tokens.ID(id), func(one usage.Detailed, id tokens.ID) int {
			return cmp.Compare(one.ID, id)
		}); found {
			texts[i] = known
		}
		return nil
	}, args...)
	if err != nil {
		return nil, err
	}
	for i, one := range batch {
		texts[i] = mergedDetail(texts[i], one.Detail)
	}
	return texts, nil
}

// mergedDetail adds details to those that are stored.
func mergedDetail(stored string, add usage.Detail) string {
	d := parseDetail(stored)
	d.Add(add)
	slices.SortFunc(d.Scopes, func(a, b usage.ScopeUse) int { return strings.Compare(a.Scope, b.Scope) })
	slices.SortFunc(d.Sources, func(a, b usage.Source) int { return int(b.Micros - a.Micros) })
	d.Sources = d.Sources[:min(len(d.Sources), tokens.MaxSources)]
	text := make([]byte, 0, len(stored)+64)
	for _, u := range d.Scopes {
		if u.Scope == "" {
			text = append(text, 'n', ' ')
		} else {
			text = append(append(append(text, 's', ' '), u.Scope...), ' ')
		}
		text = append(strconv.AppendInt(text, u.Day, 10), ' ')
		text = append(strconv.AppendInt(text, u.Count, 10), '\n')
	}
	for _, from := range d.Sources {
		text = append(strconv.AppendInt(append(text, 'a', ' '), from.Micros, 10), ' ')
		if from.IP.IsValid() {
			text = from.IP.AppendTo(text)
		} else {
			text = append(text, '-')
		}
		text = append(append(append(text, ' '), from.Service...), '\n')
	}
	return string(text)
}

func parseDetail(text string) (d usage.Detail) {
	for line := range strings.Lines(text) {
		var f [4]string
		n := 0
		for part := range strings.SplitSeq(strings.TrimSuffix(line, "\n"), " ") {
			if n < len(f) {
				f[n] = part
			}
			n++
		}
		number := func(i int) int64 {
			n, _ := strconv.ParseInt(f[i], 10, 64) // what cannot be read counts as none
			return n
		}
		switch {
		case f[0] == "s" && n == 4:
			d.AddScope(usage.ScopeUse{Scope: f[1], Day: number(2), Count: number(3)})
		case f[0] == "n" && n == 3:
			d.AddScope(usage.ScopeUse{Day: number(1), Count: number(2)})
		case f[0] == "a" && n == 4:
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
		var of int64
		var text string
		err := t.one(op, selectOneDetail, []any{&of, &text}, int64(id))
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
