package store

import (
	"errors"
	"strings"

	"patd/store/internal/db"
	"patd/tokens"
)

const (
	selectSuspended = `SELECT scopes, asked_us FROM suspended_scopes WHERE "user" = ?`

	putSuspended = `INSERT INTO suspended_scopes ("user", scopes, asked_us) VALUES (?1, ?2, ?3)
ON CONFLICT ("user") DO UPDATE SET scopes = excluded.scopes, asked_us = excluded.asked_us`
)

// SuspendedScopes implements tokens.UserReader.
func (t *readTx) SuspendedScopes(userKey int64) (tokens.SuspendedScopes, error) {
	var (
		scopes string
		us     int64
	)
	err := t.one("read the suspended scopes of a user", selectSuspended, []any{&scopes, &us}, userKey)
	if errors.Is(err, tokens.ErrNotFound) {
		return tokens.SuspendedScopes{}, nil
	}
	if err != nil {
		return tokens.SuspendedScopes{}, err
	}
	return tokens.SuspendedScopes{Scopes: db.Split(scopes, " "), AskTime: db.Instant(us)}, nil
}

// PutSuspendedScopes implements tokens.UserWriter.
func (t *tx) PutSuspendedScopes(userKey int64, s tokens.SuspendedScopes) error {
	_, err := t.exec(
		"write the suspended scopes of a user",
		putSuspended,
		userKey,
		strings.Join(s.Scopes, " "),
		db.Micros(s.AskTime),
	)
	return err
}
