package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"sync/atomic"

	"modernc.org/sqlite"

	"patd/store/internal/db"
	"patd/tokens"
)

// InLine counts those that wait for the writer.
func (s *Store) InLine() int {
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	return len(s.group.line) + len(s.group.behind)
}

// Path is where the database is.
func (s *Store) Path() string { return s.path }

// Lose ends a change's transaction, as SQLite does by itself after an error of the disk.
func Lose(in tokens.Tx) error {
	t, ok := in.(*tx)
	if !ok {
		return fmt.Errorf("%T is not a transaction of this store", in)
	}
	t.c.Rollback()
	return t.fail("lose the transaction", driver.ErrBadConn)
}

// WithDeferredRule makes a table that refers to tokens, which is checked at the end of a transaction.
const WithDeferredRule = `CREATE TABLE deferred (token_id INTEGER NOT NULL REFERENCES tokens (id) DEFERRABLE INITIALLY DEFERRED)`

// BreakDeferredRule has a change refer to a token that does not exist, in that table.
func BreakDeferredRule(in tokens.Tx) error {
	t, ok := in.(*tx)
	if !ok {
		return fmt.Errorf("%T is not a transaction of this store", in)
	}
	_, err := t.exec("break a rule", `INSERT INTO deferred (token_id) VALUES (1)`)
	return err
}

var commits atomic.Int64

// Commits counts the commits since RefuseCommits.
func (s *Store) Commits() int64 { return commits.Load() }

// RefuseCommits makes the next n commits of changes fail, as a constraint that is checked by them would.
func (s *Store) RefuseCommits(n int) error {
	c, err := s.writer.Get(context.Background())
	if err != nil {
		return err
	}
	defer s.writer.Put(c)
	commits.Store(0)
	return c.Raw().Raw(func(dc any) error {
		hooks, ok := dc.(sqlite.HookRegisterer)
		if !ok {
			return fmt.Errorf("%T has no hooks", dc)
		}
		hooks.RegisterCommitHook(func() int32 {
			if commits.Add(1) <= int64(n) {
				return 1
			}
			return 0
		})
		return nil
	})
}

// MintStatements are those of a mint, for measuring the driver alone: to begin, the user, its live tokens, the token,
// its event, its change, to commit.
func MintStatements() []string {
	return []string{
		db.SQLiteDialect().BeginWrite[0],
		selectUser,
		selectLiveTokens,
		insertToken,
		insertEvent,
		insertChange,
		commitTx,
	}
}
