package store

import (
	"database/sql"
	"fmt"
	"strconv"
	"strings"

	"patd/store/internal/db"
	"patd/tokens"
)

// noScopes is what stands for no scopes in a column that is never empty. It is no scope (RFC 6749 section 3.3).
const noScopes = `\`

func scopesText(list []string) string {
	if len(list) == 0 {
		return noScopes
	}
	return strings.Join(list, " ")
}

func parseScopes(text string) []string {
	if text == noScopes {
		return []string{}
	}
	return db.Split(text, " ")
}

// Paused scopes are stored as lines of the time in microseconds and the scope.

func pausedText(list []tokens.Pause) string {
	var b strings.Builder
	for i, p := range list {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(strconv.FormatInt(db.Micros(p.Time), 10))
		b.WriteByte(' ')
		b.WriteString(p.Scope)
	}
	return b.String()
}

func parsePaused(text string) ([]tokens.Pause, error) {
	if text == "" {
		return nil, nil
	}
	list := make([]tokens.Pause, 0, 1+strings.Count(text, "\n"))
	for line := range strings.SplitSeq(text, "\n") {
		at, scope, ok := strings.Cut(line, " ")
		us, err := strconv.ParseInt(at, 10, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("a paused scope is stored as %q", line)
		}
		list = append(list, tokens.Pause{Scope: scope, Time: db.Instant(us)})
	}
	return list, nil
}

// sumPaused appends the sum of the paused scopes of a token.
func sumPaused(b []byte, token int64, paused string) []byte {
	return sumText(sumNumber(append(b, ofPaused), token), paused)
}

// pausedColumns returns what is stored of the paused scopes of a token.
func (t *tx) pausedColumns(tok tokens.Token) (text, checksum, endUS any, err error) {
	if len(tok.Paused) == 0 {
		return nil, nil, nil, nil
	}
	end := tok.Paused[0].End()
	for _, p := range tok.Paused[1:] {
		if p.End().Before(end) {
			end = p.End()
		}
	}
	stored := pausedText(tok.Paused)
	if tok.Revocation == nil {
		if checksum, err = t.store.rows.checksum(sumPaused(nil, int64(tok.ID), stored)); err != nil {
			return nil, nil, nil, err
		}
	}
	return stored, checksum, db.Micros(end), nil
}

// checkPaused refuses paused scopes that are not as patd wrote them. A token without any needs no checksum.
func (g *rowGuard) checkPaused(token int64, paused sql.NullString, checksum []byte) error {
	if !paused.Valid {
		return nil
	}
	return g.check(ofPaused, token, sumPaused(nil, token, paused.String), checksum)
}
