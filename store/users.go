package store

import (
	"database/sql"
	"errors"
	"fmt"

	"patd/store/internal/db"
	"patd/tokens"
)

// userRow holds a row of users.
type userRow struct {
	key      int64
	user     string
	state    int64
	features sql.NullString
	createUS int64
	deleteUS sql.NullInt64
}

func (r *userRow) record() tokens.User {
	u := tokens.User{Key: r.key, ID: r.user, State: tokens.UserSuspended, Features: db.Split(r.features.String, " "),
		CreateTime: db.Instant(r.createUS)}
	if r.state == userActive {
		u.State = tokens.UserActive
	}
	if r.deleteUS.Valid {
		u.DeleteTime = db.Instant(r.deleteUS.Int64)
	}
	return u
}

// The states as they are stored.
const (
	userActive    = 1
	userSuspended = 2
)

func userState(s tokens.UserState) (int64, error) {
	switch s {
	case tokens.UserAny:
		return 0, nil
	case tokens.UserActive:
		return userActive, nil
	case tokens.UserSuspended:
		return userSuspended, nil
	default:
		return 0, fmt.Errorf("unknown user state %d", s)
	}
}

const selectUser = `
SELECT key, "user", state, features, create_us, row_mac FROM users WHERE "user" = ? AND delete_us IS NULL`

// User implements tokens.UserReader.
func (t *readTx) User(id string) (tokens.User, error) {
	var (
		r        userRow
		checksum []byte
	)
	err := t.oneBeside(
		"read a user",
		selectUser,
		nil,
		[]any{&r.key, &r.user, &r.state, &r.features, &r.createUS, &checksum},
		id,
	)
	if err != nil {
		return tokens.User{}, err
	}
	return r.record(), t.store.rows.check(ofUser, r.key, r.sum(nil), checksum)
}

const selectUsers = `
SELECT key, "user", state, features, create_us FROM users
WHERE delete_us IS NULL AND "user" > ?1 AND (?2 = 0 OR state = ?2) AND "user" >= ?4 AND (?5 = '' OR "user" < ?5)
ORDER BY "user" LIMIT ?3`

// Users implements tokens.UserReader.
func (t *readTx) Users(q tokens.UserQuery) ([]tokens.User, error) {
	state, err := userState(q.State)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	var below string // the ids that begin so are below it
	if q.Begins != "" {
		below = q.Begins + "\U0010FFFF"
	}
	list := []tokens.User{}
	err = t.each("list users", selectUsers, func(rows *sql.Rows) error {
		var r userRow
		err := rows.Scan(&r.key, &r.user, &r.state, &r.features, &r.createUS)
		list = append(list, r.record())
		return err
	}, q.After, state, q.Limit, q.Begins, below)
	if err != nil {
		return nil, err
	}
	return list, nil
}

const insertUser = `
INSERT INTO users (key, "user", state, features, create_us, row_mac)
VALUES (NULL /* next users.key */, ?, ?, ?, ?, ?)
ON CONFLICT ("user") WHERE delete_us IS NULL DO NOTHING
RETURNING key`

// InsertUser implements tokens.UserWriter. A user without a state is active.
func (t *tx) InsertUser(u tokens.User) (int64, error) {
	const op = "insert a user"
	state, err := userState(u.State)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", op, err)
	}
	if state == 0 {
		state = userActive
	}
	r := userRow{user: u.ID, state: state, features: db.TextOf(db.Join(u.Features, " ")),
		createUS: db.Micros(u.CreateTime)}
	checksum, err := t.store.rows.checksum(r.sum(nil))
	if err != nil {
		return 0, err
	}
	key, err := t.numbered(op, insertUser, r.user, r.state, db.Join(u.Features, " "), r.createUS, checksum)
	switch {
	case err != nil:
		return 0, err
	case key == 0:
		return 0, tokens.ErrTaken
	}
	t.wrote = true
	return key, nil
}

// A deleted user stays deleted: it is not found.
const (
	selectUserRow = `
SELECT key, "user", state, features, create_us, row_mac FROM users WHERE key = ? AND delete_us IS NULL`

	updateUser = `
UPDATE users SET state = ?, features = ?, delete_us = ?, row_mac = ? WHERE key = ? AND delete_us IS NULL`
)

// UpdateUser implements tokens.UserWriter.
func (t *tx) UpdateUser(u tokens.User) error {
	state, err := userState(u.State)
	if err != nil {
		return fmt.Errorf("update a user: %w", err)
	}
	if state == 0 {
		return errors.New("update a user: a state is needed")
	}
	checksum, err := t.userChecksum(u, state)
	if err != nil {
		return err
	}
	return t.mustExec("update a user", fmt.Errorf("user: %w", tokens.ErrNotFound), updateUser,
		state, db.Join(u.Features, " "), db.NullTime(u.DeleteTime), checksum, u.Key)
}

// userChecksum returns the checksum of a user's row as an update is about to leave it. A row that is refused stays so,
// and can only be suspended or deleted.
func (t *tx) userChecksum(u tokens.User, state int64) (checksum any, err error) {
	if !u.DeleteTime.IsZero() {
		return nil, nil
	}
	var (
		r   userRow
		old []byte
	)
	err = t.one("read a user", selectUserRow, []any{&r.key, &r.user, &r.state, &r.features, &r.createUS, &old}, u.Key)
	if err != nil {
		return nil, fmt.Errorf("user: %w", err)
	}
	if err := t.store.rows.check(ofUser, r.key, r.sum(nil), old); err != nil {
		if state == userSuspended {
			return noChecksum(), nil
		}
		return nil, err
	}
	r.state, r.features = state, db.TextOf(db.Join(u.Features, " "))
	return t.store.rows.checksum(r.sum(nil))
}
