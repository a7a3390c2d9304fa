package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"

	"patd/store/internal/db"
	"patd/tokens"
)

// One statement reads a token, its user and the secrets rotated away, at one instant. For a token that was never
// rotated the last join compares with NULL and reads nothing, so that an unknown id, a wrong secret and a good one
// all cost one point query.
//
// SQLite's driver copies the name of each column for each lookup, which takes no memory where it is one letter. Each
// column still costs something: the id is known, and the checksums of the token and its user are one.
const selectCredential = `
SELECT t.user AS a, u.user AS b, t.name AS c, t.scopes AS d, t.issue_us AS e, t.expire_us AS f, t.audiences AS g,
       t.cidrs AS h, t.labels AS i, t.description AS j, t.revoke_us AS k, t.revoked_by AS l, t.revoke_reason AS m,
       t.blocked_by AS n, t.paused AS n, t.key AS o, t.digest AS p, t.rotations AS q, u.state AS r, u.features AS s, u.create_us AS t,
       u.delete_us AS u, o.key AS v, o.digest AS w, o.until_us AS x, o.serial AS y,
       o.ended_us AS z, o.next_use_us AS a, CAST(t.row_mac || u.row_mac AS BLOB) AS b, o.row_mac AS c,
       t.paused_mac AS d
FROM tokens t
CROSS JOIN users u ON u.key = t.user
LEFT JOIN old_secrets o ON o.token_id = CASE WHEN t.rotations > 0 THEN t.id END
WHERE t.id = ?
ORDER BY o.serial DESC`

// Lookup implements tokens.Store.
func (s *Store) Lookup(ctx context.Context, id tokens.ID) (tokens.Credential, error) {
	cred := tokens.Credential{Sequence: s.feed.Sequence()} // before the snapshot begins
	err := s.lookup(ctx, "look up a token", func(ctx context.Context, c *db.Conn) error {
		return s.readCredential(ctx, c, id, &cred)
	})
	if err != nil {
		return tokens.Credential{}, err
	}
	return cred, nil
}

// credentialRow is a row of selectCredential.
type credentialRow struct {
	token     tokenRow
	user      userRow
	key       int64
	digest    sql.RawBytes
	rotations int64
	oldKey    sql.NullInt64
	oldDigest sql.RawBytes
	oldUntil  sql.NullInt64
	oldSerial sql.NullInt64
	oldEnded  sql.NullInt64
	nextUse   sql.NullInt64
	checksums sql.RawBytes // of the token and the user; NULL where one has none
	ofOld     sql.RawBytes
	ofPauses  sql.RawBytes
}

func (r *credentialRow) dest() []any {
	return append(
		r.token.contents(nil),
		&r.key,
		&r.digest,
		&r.rotations,
		&r.user.state,
		&r.user.features,
		&r.user.createUS,
		&r.user.deleteUS,
		&r.oldKey,
		&r.oldDigest,
		&r.oldUntil,
		&r.oldSerial,
		&r.oldEnded,
		&r.nextUse,
		&r.checksums,
		&r.ofOld,
		&r.ofPauses,
	)
}

// reading is what is kept of the rows of a credential until all have been read: only then are the names of their keys
// known, and with them the sums. Its memory is used again.
type reading struct {
	row       credentialRow
	columns   []any // where the columns go
	keys      []int64
	checksums []byte // of the token and the user, and of the secrets that were rotated away
	ends      []int  // where each of them ends
	paused    []byte // the checksum of the paused scopes
	sum       []byte
}

func newReading() *reading {
	r := new(reading)
	r.columns = r.row.dest()
	return r
}

// readingOf returns a connection's. Every scan overwrites all of its row.
func readingOf(c *db.Conn) *reading {
	r, ok := c.Scratch.(*reading)
	if !ok {
		r = newReading()
		c.Scratch = r
	}
	r.keys, r.checksums, r.ends = r.keys[:0], r.checksums[:0], r.ends[:0]
	return r
}

func (r *reading) keep(checksum []byte) {
	r.checksums = append(r.checksums, checksum...)
	r.ends = append(r.ends, len(r.checksums))
}

// kept returns the nth checksum that was kept.
func (r *reading) kept(n int) []byte {
	from := 0
	if n > 0 {
		from = r.ends[n-1]
	}
	return r.checksums[from:r.ends[n]]
}

// add takes in a row.
func (r *reading) add(cred *tokens.Credential) error {
	row := &r.row
	if len(r.keys) == 0 {
		if err := row.fill(cred); err != nil {
			return err
		}
		r.keys = append(r.keys, row.key)
		current, err := storedSecret(row.digest)
		if err != nil {
			return err
		}
		current.Serial = row.rotations
		cred.Secrets = append(cred.Secrets, current)
		r.keep(row.checksums)
		r.paused = append(r.paused[:0], row.ofPauses...)
	}
	if !row.oldKey.Valid {
		return nil // never rotated: there is no other row
	}
	r.keys = append(r.keys, row.oldKey.Int64)
	old, err := storedSecret(row.oldDigest)
	if err != nil {
		return err
	}
	row.fillOld(&old)
	cred.Secrets = append(cred.Secrets, old)
	r.keep(row.ofOld)
	return nil
}

// check compares the rows with their checksums, once the names of their keys are known. A row that makes the token
// inactive needs none.
func (r *reading) check(g *rowGuard, cred *tokens.Credential) error {
	row := &r.row
	if row.token.revokeUS.Valid {
		return nil
	}
	secrets := cred.Secrets
	r.sum = row.token.sum(r.sum[:0], row.rotations, secrets[0].Hash.Sum[:], secrets[0].Hash.Key)
	tokenSum, userSum := tokens.CutChecksum(r.kept(0))
	if err := g.check(ofToken, row.token.id, r.sum, tokenSum); err != nil {
		return err
	}
	if err := g.checkPaused(row.token.id, row.token.paused, r.paused); err != nil {
		return err
	}
	if row.user.state == userActive && !row.user.deleteUS.Valid {
		r.sum = row.user.sum(r.sum[:0])
		if err := g.check(ofUser, row.user.key, r.sum, userSum); err != nil {
			return err
		}
	}
	for i := range secrets[1:] {
		old := &secrets[i+1]
		until := db.Micros(old.ExpireTime)
		if until <= 0 {
			continue
		}
		r.sum = sumOld(r.sum[:0], row.token.id, old.Serial+1, until, old.Hash.Sum[:], old.Hash.Key)
		if err := g.check(ofOld, row.token.id, r.sum, r.kept(i+1)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) readCredential(ctx context.Context, c *db.Conn, id tokens.ID, cred *tokens.Credential) error {
	r := readingOf(c)
	r.row.token.id, cred.Secrets = int64(id), nil
	err := c.Directly(ctx, selectCredential, int64(id), r.columns, func() error { return r.add(cred) })
	if err != nil {
		return err
	}
	if len(r.keys) == 0 {
		return tokens.ErrNotFound
	}
	for i, key := range r.keys {
		if cred.Secrets[i].Hash.Key, err = s.keyName(ctx, c, key); err != nil {
			return err
		}
	}
	return r.check(&s.rows, cred)
}

// Credential implements tokens.TokenReader.
func (t *readTx) Credential(id tokens.ID) (tokens.Credential, error) {
	var cred tokens.Credential
	r := newReading()
	r.row.token.id = int64(id)
	err := t.each("read a token, its user and its secrets", selectCredential, func(rows *sql.Rows) error {
		if err := rows.Scan(r.columns...); err != nil {
			return err
		}
		return r.add(&cred)
	}, int64(id))
	if err == nil && len(cred.Secrets) == 0 {
		err = fmt.Errorf("token %s: %w", id, tokens.ErrNotFound)
	}
	for i := 0; err == nil && i < len(r.keys); i++ {
		cred.Secrets[i].Hash.Key, err = t.keyName(r.keys[i])
	}
	if err == nil {
		err = r.check(&t.store.rows, &cred)
	}
	if err != nil {
		return tokens.Credential{}, err
	}
	for i := range cred.Secrets {
		cred.Secrets[i].Hash = tokens.Hash{}
	}
	return cred, nil
}

func (r *credentialRow) fill(cred *tokens.Credential) error {
	t, err := r.token.token()
	if err != nil {
		return err
	}
	r.user.key, r.user.user = t.UserKey, t.User
	cred.Token, cred.User = t, r.user.record()
	return nil
}

// fillOld fills in what is known of a secret that was rotated away. old_secrets counts from 1: its serial is what
// rotations became then.
func (r *credentialRow) fillOld(old *tokens.StoredSecret) {
	old.Serial, old.ExpireTime = r.oldSerial.Int64-1, db.Instant(r.oldUntil.Int64)
	old.EndTime, old.NextUsed = nullInstant(r.oldEnded), r.nextUse.Valid
}

var errShortDigest = errors.New("a stored digest is cut short")

// storedSecret is a secret without the name of its key.
func storedSecret(digest []byte) (secret tokens.StoredSecret, err error) {
	if copy(secret.Hash.Sum[:], digest) != len(secret.Hash.Sum) {
		err = errShortDigest
	}
	return secret, err
}

const selectKeyName = `SELECT name FROM keys WHERE num = ?`

// keyName returns the name of a key by its number. Both never change once committed, so they are remembered; only
// lookups, which see nothing uncommitted, come here.
func (s *Store) keyName(ctx context.Context, c *db.Conn, num int64) (string, error) {
	known := s.keyNames.Load()
	if name, ok := (*known)[num]; ok {
		return name, nil
	}
	var name string
	if err := c.One(ctx, selectKeyName, []any{&name}, num); err != nil {
		return "", fmt.Errorf("read the name of key %d: %w", num, err)
	}
	more := maps.Clone(*known)
	more[num] = name
	s.keyNames.CompareAndSwap(known, &more) // losing to another is harmless: the next lookup adds it
	return name, nil
}

// keyName returns the name of a key by its number, which may be one that the transaction itself has added.
func (t *readTx) keyName(num int64) (name string, err error) {
	if name, ok := (*t.store.keyNames.Load())[num]; ok {
		return name, nil
	}
	if err := t.one("read the name of a key", selectKeyName, []any{&name}, num); err != nil {
		return "", fmt.Errorf("key %d: %w", num, err)
	}
	return name, nil
}

const selectServiceCredential = `SELECT ` + serviceColumns + `, key, digest, old_key, old_digest, row_mac
FROM services WHERE id = ?`

// LookupService implements tokens.Store.
func (s *Store) LookupService(ctx context.Context, id tokens.ID) (tokens.ServiceCredential, error) {
	var cred tokens.ServiceCredential
	err := s.lookup(ctx, "look up a service", func(ctx context.Context, c *db.Conn) error {
		var (
			r       serviceRow
			key     int64
			oldKey  sql.NullInt64
			secrets serviceSecrets
		)
		err := c.One(ctx, selectServiceCredential, r.dest(&key, &secrets.digest, &oldKey, &secrets.oldDigest,
			&secrets.checksum), int64(id))
		if errors.Is(err, sql.ErrNoRows) {
			return tokens.ErrNotFound
		}
		if err != nil {
			return err
		}
		if cred.Service, err = r.service(); err != nil {
			return err
		}
		if cred.Secret, err = storedSecret(secrets.digest); err != nil {
			return err
		}
		cred.Secret.Serial = r.rotations
		if cred.Secret.Hash.Key, err = s.keyName(ctx, c, key); err != nil {
			return err
		}
		secrets.key = cred.Secret.Hash.Key
		if oldKey.Valid {
			old, err := storedSecret(secrets.oldDigest)
			if err != nil {
				return err
			}
			old.Serial, old.ExpireTime = r.rotations-1, cred.Service.PreviousUntil
			if old.Hash.Key, err = s.keyName(ctx, c, oldKey.Int64); err != nil {
				return err
			}
			secrets.oldKey.String, cred.Previous = old.Hash.Key, &old
		}
		return r.check(&s.rows, &secrets)
	})
	if err != nil {
		return tokens.ServiceCredential{}, err
	}
	return cred, nil
}
