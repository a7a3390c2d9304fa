package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"patd/tokens"
	"patd/tokens/secret"
)

// Checksums of rows. Whatever a decision about a credential rests on is in a row that carries a keyed checksum, made of
// the row as it is in memory when it is written, and compared when the row becomes a record. A row that has ended (see
// protected.live) has none, so that ending a row never depends on what is in it.
//
// A row is summed up as a byte for its table, its numbers in eight bytes each, and its texts and digests, each after
// its length. NULL is zero, or empty. The orders here and in the protected tables are the same.

// rowGuard makes and checks checksums, and knows whether a row may be without one.
type rowGuard struct {
	logger *slog.Logger
	short  bool // it makes short checksums: no program that does not know them uses the database
	keys   atomic.Pointer[secret.Keys]
	sealed atomic.Int64  // the database says so, or once did: see secret.Keys.SealedTo
	failed atomic.Uint64 // rows that were refused

	mu     sync.Mutex
	logged map[refusedRow]bool
}

// refusedRow names a row that was refused.
type refusedRow struct {
	table byte
	id    int64
}

// maxLogged bounds how many refused rows are remembered as logged; of more only the number is known.
const maxLogged = 10_000

// The tables, as they stand in the sum of a row.
const (
	ofUser    = 'u'
	ofToken   = 't'
	ofSelf    = 'p' // whether and until when a token rotates itself
	ofPaused  = 'q' // the scopes of a token that are paused
	ofOld     = 'o'
	ofBefore  = 'b'
	ofService = 's'
	ofFamily  = 'f'
	ofRefresh = 'r'
	ofAccess  = 'a'

	ofWebhook     = 'w'
	ofProvisioned = 'x'

	ofOldService = 'S' // no table: the earlier secret in a service's row
)

var (
	errNoChecksum = errors.New("it has no checksum, and the rows of this store are sealed")
	errNoKeys     = errors.New("the store was opened without its keys")
)

// sealedTo returns the migration up to which every row that has not ended must have a checksum, of the tables that had
// got them by then; 0: none must.
func (g *rowGuard) sealedTo() int {
	to := int(g.sealed.Load())
	if ks := g.keys.Load(); ks != nil {
		to = max(to, ks.SealedTo())
	}
	return to
}

// isSealed reports whether every row of a table that has not ended must have a checksum.
func (g *rowGuard) isSealed(table byte) bool {
	since := secret.SealedFirst
	if table == ofWebhook || table == ofProvisioned {
		since = secret.SealedAll
	}
	return g.sealedTo() >= since
}

// compare returns nil for a row that is as patd wrote it, or that may be without a checksum. Its sum begins with its
// table.
func (g *rowGuard) compare(row, checksum []byte) error {
	ks := g.keys.Load()
	switch {
	case len(checksum) == 0 && g.isSealed(row[0]):
		return errNoChecksum
	case len(checksum) == 0:
		return nil
	case ks == nil:
		return errNoKeys
	default:
		return ks.CheckRow(row, checksum)
	}
}

// check is compare for a row that is about to become a record.
func (g *rowGuard) check(table byte, id int64, row, checksum []byte) error {
	err := g.compare(row, checksum)
	if err == nil {
		return nil
	}
	return g.refuse(table, id, err)
}

// refuse counts a refused row, and logs it once.
func (g *rowGuard) refuse(table byte, id int64, cause error) error {
	g.failed.Add(1)
	name, shown := tableName(table), rowName(table, id)
	row := refusedRow{table, id}
	g.mu.Lock()
	first := !g.logged[row] && len(g.logged) < maxLogged
	if first {
		if g.logged == nil {
			g.logged = map[refusedRow]bool{}
		}
		g.logged[row] = true
	}
	g.mu.Unlock()
	if first {
		g.logger.LogAttrs(context.Background(), slog.LevelError,
			"store: a row is refused: it is not as patd wrote it; see `patd check`",
			slog.String("table", name), slog.String("id", shown), slog.Any("error", cause))
	}
	return tokens.RecordInvalid(fmt.Errorf("%s %s: %w", name, shown, cause))
}

// checksum returns the checksum of a row that is about to be written, as a parameter of a statement; NULL where the
// store has no keys.
func (g *rowGuard) checksum(row []byte) (any, error) {
	ks := g.keys.Load()
	switch {
	case ks != nil:
		return ks.RowChecksum(row, g.short), nil
	case g.isSealed(row[0]):
		return nil, tokens.StoreUnavailable("make the checksum of a row", errNoKeys)
	default:
		return nil, nil
	}
}

// next returns the checksum of a row that is about to be changed, as checksum does. One that is refused stays so: where
// it had none, as after a change by a server of the version before, it gets none until the operator seals the rows.
func (g *rowGuard) next(was, had, row []byte) (any, error) {
	switch {
	case g.compare(was, had) == nil:
		return g.checksum(row)
	case len(had) == 0:
		return nil, nil
	default:
		return noChecksum(), nil
	}
}

// noChecksum is the checksum of no row: it takes the place of a wrong one, so that the row stays refused.
func noChecksum() []byte { return []byte{0} }

func rowName(table byte, id int64) string {
	if table == ofUser || table == ofProvisioned {
		return fmt.Sprintf("with key %d", id)
	}
	return tokens.ID(id).String()
}

func sumNumber(b []byte, n int64) []byte { return binary.LittleEndian.AppendUint64(b, uint64(n)) }

func sumText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// sum appends the sum of a token's row.
func (r *tokenRow) sum(b []byte, rotations int64, digest []byte, key string) []byte {
	b = append(b, ofToken)
	for _, n := range [...]int64{r.id, r.userKey, rotations, r.issueUS, r.expireUS} {
		b = sumNumber(b, n)
	}
	for _, s := range [...]string{r.user, r.name, r.scopes, r.audiences.String, r.cidrs.String, r.labels.String,
		r.blockedBy.String} {
		b = sumText(b, s)
	}
	return sumText(sumText(b, digest), key)
}

// sumSelf appends the sum of what a token may do by itself.
func sumSelf(b []byte, token, untilUS int64) []byte {
	return sumNumber(sumNumber(append(b, ofSelf), token), untilUS)
}

// sum appends the sum of a user's row. Its key is in the sums of the tokens, beside the user's id.
func (r *userRow) sum(b []byte) []byte {
	b = sumNumber(sumNumber(append(b, ofUser), r.createUS), r.state)
	return sumText(sumText(b, r.user), r.features.String)
}

// sumOld appends the sum of a secret that was rotated away.
func sumOld(b []byte, token, serial, untilUS int64, digest []byte, key string) []byte {
	b = sumNumber(sumNumber(sumNumber(append(b, ofOld), token), serial), untilUS)
	return sumText(sumText(b, digest), key)
}

func (r *serviceRow) sum(b []byte, s *serviceSecrets) []byte {
	b = append(b, ofService)
	for _, n := range [...]int64{r.id, r.issueUS, r.expireUS, r.rotations, r.oldUntilUS.Int64} {
		b = sumNumber(b, n)
	}
	for _, text := range [...]string{r.name, r.permissions, r.audience.String} {
		b = sumText(b, text)
	}
	b = sumText(sumText(b, s.oldDigest), s.oldKey.String)
	return sumText(sumText(b, s.digest), s.key)
}

func (r *accessRow) sum(b []byte, digest []byte, key string) []byte {
	b = append(b, ofAccess)
	for _, n := range [...]int64{r.id, r.tokenID, r.serial, r.family.Int64, r.issueUS, r.expireUS} {
		b = sumNumber(b, n)
	}
	for _, s := range [...]string{r.clientID.String, r.scopes, r.audiences.String} {
		b = sumText(b, s)
	}
	return sumText(sumText(b, digest), key)
}

func (r *familyRow) sum(b []byte) []byte {
	b = append(b, ofFamily)
	for _, n := range [...]int64{r.id, r.tokenID, r.serial, r.authenticated, r.issueUS, r.expireUS} {
		b = sumNumber(b, n)
	}
	for _, s := range [...]string{r.clientID.String, r.scopes, r.audiences} {
		b = sumText(b, s)
	}
	return b
}

// sumRefresh appends the sum of a refresh token's row.
func sumRefresh(b []byte, id, family, issueUS int64, digest []byte, key string) []byte {
	b = sumNumber(sumNumber(sumNumber(append(b, ofRefresh), id), family), issueUS)
	return sumText(sumText(b, digest), key)
}
