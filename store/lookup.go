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
const selectCredential = `SELECT ` + tokenColumns + `,
       t.key, t.digest, t.rotations, u.state, u.features, u.create_us, u.delete_us, o.key, o.digest, o.until_us,
         o.serial, o.ended_us, o.next_use_us
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
}

func (r *credentialRow) dest() []any {
	return append(r.token.dest(nil), &r.key, &r.digest, &r.rotations, &r.user.state, &r.user.features, &r.user.createUS,
		&r.user.deleteUS, &r.oldKey, &r.oldDigest, &r.oldUntil, &r.oldSerial, &r.oldEnded, &r.nextUse)
}

// scratch is the row that lookups on a connection scan into, and where its columns go, made once.
type scratch struct {
	row     credentialRow
	columns []any
}

// scratchOf returns a connection's. Every scan overwrites all of it.
func scratchOf(c *db.Conn) (*credentialRow, []any) {
	s, ok := c.Scratch.(*scratch)
	if !ok {
		s = new(scratch)
		s.columns = s.row.dest()
		c.Scratch = s
	}
	return &s.row, s.columns
}

func (s *Store) readCredential(ctx context.Context, c *db.Conn, id tokens.ID, cred *tokens.Credential) error {
	r, dest := scratchOf(c)
	cred.Secrets = nil
	keys := make([]int64, 0, 4) // the connection tells their names when the rows have been read
	err := c.Directly(ctx, selectCredential, int64(id), dest, func() error {
		if len(keys) == 0 {
			if err := r.fill(cred); err != nil {
				return err
			}
			keys = append(keys, r.key)
			current, err := storedSecret(r.digest)
			if err != nil {
				return err
			}
			current.Serial = r.rotations
			cred.Secrets = append(cred.Secrets, current)
		}
		if !r.oldKey.Valid {
			return nil // never rotated: there is no other row
		}
		keys = append(keys, r.oldKey.Int64)
		old, err := storedSecret(r.oldDigest)
		if err != nil {
			return err
		}
		r.fillOld(&old)
		cred.Secrets = append(cred.Secrets, old)
		return nil
	})
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return tokens.ErrNotFound
	}
	for i, key := range keys {
		if cred.Secrets[i].Hash.Key, err = s.keyName(ctx, c, key); err != nil {
			return err
		}
	}
	return nil
}

// Credential implements tokens.TokenReader.
func (t *readTx) Credential(id tokens.ID) (tokens.Credential, error) {
	var (
		cred tokens.Credential
		r    credentialRow
	)
	dest := r.dest()
	err := t.each("read a token, its user and its secrets", selectCredential, func(rows *sql.Rows) error {
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		if len(cred.Secrets) == 0 {
			if err := r.fill(&cred); err != nil {
				return err
			}
			cred.Secrets = append(cred.Secrets, tokens.StoredSecret{Serial: r.rotations})
		}
		if r.oldKey.Valid {
			var old tokens.StoredSecret
			r.fillOld(&old)
			cred.Secrets = append(cred.Secrets, old)
		}
		return nil
	}, int64(id))
	if err == nil && len(cred.Secrets) == 0 {
		err = fmt.Errorf("token %s: %w", id, tokens.ErrNotFound)
	}
	if err != nil {
		return tokens.Credential{}, err
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

const selectServiceCredential = `SELECT ` + serviceColumns + `, key, digest, old_key, old_digest FROM services WHERE id = ?`

// LookupService implements tokens.Store.
func (s *Store) LookupService(ctx context.Context, id tokens.ID) (tokens.ServiceCredential, error) {
	var cred tokens.ServiceCredential
	err := s.lookup(ctx, "look up a service", func(ctx context.Context, c *db.Conn) error {
		var (
			r                 serviceRow
			key               int64
			oldKey            sql.NullInt64
			digest, oldDigest []byte
		)
		err := c.One(ctx, selectServiceCredential, append(r.dest(nil), &key, &digest, &oldKey, &oldDigest), int64(id))
		if errors.Is(err, sql.ErrNoRows) {
			return tokens.ErrNotFound
		}
		if err != nil {
			return err
		}
		if cred.Service, err = r.service(); err != nil {
			return err
		}
		if cred.Secret, err = storedSecret(digest); err != nil {
			return err
		}
		cred.Secret.Serial = r.rotations
		if cred.Secret.Hash.Key, err = s.keyName(ctx, c, key); err != nil || !oldKey.Valid {
			return err
		}
		old, err := storedSecret(oldDigest)
		if err != nil {
			return err
		}
		old.Serial, old.ExpireTime = r.rotations-1, cred.Service.PreviousUntil
		old.Hash.Key, err = s.keyName(ctx, c, oldKey.Int64)
		cred.Previous = &old
		return err
	})
	if err != nil {
		return tokens.ServiceCredential{}, err
	}
	return cred, nil
}
