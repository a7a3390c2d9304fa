package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"patd/store/internal/db"
)

// WithPragmas adds settings to the writer.
func (o Options) WithPragmas(p ...string) Options {
	o.pragmas = append(o.pragmas, p...)
	return o
}

// Exec runs any statement on the writer.
func (s *Store) Exec(ctx context.Context, query string, args ...any) error {
	c, err := s.writer.Get(ctx)
	if err != nil {
		return err
	}
	defer s.writer.Put(c)
	_, err = c.Raw().ExecContext(ctx, query, args...)
	return err
}

// Texts runs a query on the writer and answers one column as text.
func (s *Store) Texts(ctx context.Context, column int, query string, args ...any) (list []string, err error) {
	c, err := s.writer.Get(ctx)
	if err != nil {
		return nil, err
	}
	defer s.writer.Put(c)
	rows, err := c.Raw().QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		texts := make([]sql.NullString, len(columns))
		dest := make([]any, len(columns))
		for i := range texts {
			dest[i] = &texts[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return nil, err
		}
		list = append(list, texts[column].String)
	}
	return list, rows.Err()
}

// Columns lists the columns of a table.
func (s *Store) Columns(ctx context.Context, table string) ([]string, error) {
	c, err := s.writer.Get(ctx)
	if err != nil {
		return nil, err
	}
	defer s.writer.Put(c)
	rows, err := c.Raw().QueryContext(ctx, `SELECT * FROM `+table+` LIMIT 0`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	return columns, errors.Join(err, rows.Err())
}

// OnEveryConnection returns the value of a PRAGMA on each connection of each pool.
func (s *Store) OnEveryConnection(ctx context.Context, pragma string) (values map[string][]string, err error) {
	values = map[string][]string{}
	for name, p := range map[string]*db.Pool{"writer": s.writer, "lookups": s.lookups, "views": s.views} {
		for range p.Size() {
			c, err := p.Get(ctx)
			if err != nil {
				return nil, err
			}
			defer p.Put(c)
			var v string
			if err := c.One(ctx, "PRAGMA "+pragma, []any{&v}); err != nil {
				return nil, err
			}
			values[name] = append(values[name], v)
		}
	}
	return values, nil
}

// MakeOld makes a store as an older program would have: with the schema of that version.
func MakeOld(ctx context.Context, path string, version int64) (*sql.DB, error) {
	if err := db.CreateFile(path); err != nil {
		return nil, err
	}
	database, err := sql.Open("sqlite", db.WriterDSN(path, Options{}.withDefaults().settings()))
	if err != nil {
		return nil, err
	}
	database.SetMaxOpenConns(1)
	p, err := provider(goose.DialectSQLite3, database)
	if err == nil {
		_, err = database.ExecContext(ctx, setApplicationID+strconv.Itoa(db.ApplicationID))
	}
	if err == nil {
		_, err = p.UpTo(ctx, version)
	}
	if err != nil {
		return nil, errors.Join(err, database.Close())
	}
	return database, nil
}

// Prune prunes at once.
func (s *Store) Prune(ctx context.Context) error { return s.prune(ctx) }

// CatchUp looks at once for what other processes changed.
func (s *Store) CatchUp(ctx context.Context) error { return s.catchUp(ctx) }

// Statements whose use of indexes is proven, and the index they use ("" : the primary key).
func Statements() map[string][]string {
	return map[string][]string{
		selectCredential: {
			"SEARCH t USING INTEGER PRIMARY KEY",
			"SEARCH u USING INTEGER PRIMARY KEY",
			"SEARCH o USING PRIMARY KEY",
		},
		selectServiceCredential: {"SEARCH services USING INTEGER PRIMARY KEY"},
		selectToken: {
			"SEARCH t USING INTEGER PRIMARY KEY",
			"SEARCH u USING INTEGER PRIMARY KEY",
			"SEARCH w USING INTEGER PRIMARY KEY",
			"SEARCH r USING PRIMARY KEY (token_id=? AND serial=?)",
		},
		selectRevokedTokens: {
			"SEARCH t USING INDEX tokens_user (user=? AND <expr>=? AND rowid<?)",
			"SEARCH u USING INTEGER PRIMARY KEY",
		},
		selectLiveTokens: {"SEARCH t USING INDEX tokens_user (user=? AND <expr>>?)"},
		revokeTokens:     {"SEARCH tokens USING INDEX tokens_user (user=? AND <expr>>?)"},
		forgetSealed:     {"SEARCH requests USING INDEX requests_sealed (token_id=?)"},
		selectRequest:    {"SEARCH requests USING PRIMARY KEY (key=?)"},
		selectUser:       {"SEARCH users USING INDEX users_live (user=?)"},
		selectUsers:      {"SEARCH users USING INDEX users_live (user>?)"},
		selectService: {
			"SEARCH services USING INTEGER PRIMARY KEY",
			"SEARCH services USING INDEX services_name (name=?)",
		},
		selectEvents:        {"SEARCH events USING INTEGER PRIMARY KEY (rowid<?)"},
		selectEventsOfUser:  {"SEARCH events USING INDEX events_user (user=? AND rowid<?)"},
		selectEventsOfToken: {"SEARCH events USING INDEX events_token (token_id=? AND rowid<?)"},
		endOldSecrets:       {"SEARCH old_secrets USING PRIMARY KEY (token_id=?)"},
		useSecret:           {"SEARCH old_secrets USING PRIMARY KEY (token_id=? AND serial=?)"},
		presentSuperseded:   {"SEARCH old_secrets USING PRIMARY KEY (token_id=? AND serial=?)"},
		tableOf(ofAccess).selectRows(ofSecret, ``): {
			"SEARCH x USING INDEX access_tokens_live (token_id=? AND serial=?)",
		},
		tableOf(ofFamily).selectRows(ofSecret, ``): {"SEARCH x USING INDEX families_live (token_id=? AND serial=?)"},
		selectBlocked:           {"SEARCH t USING INDEX tokens_blocked (id>?)", "SEARCH u USING INTEGER PRIMARY KEY"},
		countBlocked:            {"SEARCH tokens USING INDEX tokens_blocked (id>?)"},
		countExceeding:          {"SEARCH tokens USING COVERING INDEX tokens_exceeding (expire_us>? AND expire_us<?)"},
		setBlocked:              {"SEARCH tokens USING INTEGER PRIMARY KEY"},
		selectFeature:           {"SEARCH features USING PRIMARY KEY (name=?)"},
		selectFeatures:          {"SEARCH features USING PRIMARY KEY (name>?)"},
		selectDefaultFeatures:   {"SEARCH features USING INDEX features_default (name>?)"},
		selectPublishedFeatures: {"SEARCH features USING INDEX features_published (name>?)"},
		selectAudience:          {"SEARCH audiences USING PRIMARY KEY (id=?)"},
		selectAudiences:         {"SEARCH audiences USING PRIMARY KEY (id>?)"},
		selectResources:         {"SEARCH audiences USING COVERING INDEX audiences_resource (resource>?)"},
		selectAccessCredential:  {"SEARCH access_tokens USING INTEGER PRIMARY KEY"},
		selectAccess:            {"SEARCH access_tokens USING INTEGER PRIMARY KEY"},
		selectRefresh: {
			"SEARCH r USING INTEGER PRIMARY KEY",
			"SEARCH f USING INTEGER PRIMARY KEY",
			"SEARCH k USING INTEGER PRIMARY KEY",
		},
		revokeAccess:         {"SEARCH access_tokens USING INTEGER PRIMARY KEY"},
		revokeFamily:         {"SEARCH families USING INTEGER PRIMARY KEY"},
		revokeFamilyAccess:   {"SEARCH access_tokens USING INDEX access_tokens_family (family=?)"},
		useRefresh:           {"SEARCH refresh_tokens USING INTEGER PRIMARY KEY"},
		rekeyAccess:          {"SEARCH access_tokens USING INTEGER PRIMARY KEY"},
		rekeyRefresh:         {"SEARCH refresh_tokens USING INTEGER PRIMARY KEY"},
		selectEntries:        {"SEARCH changes USING INTEGER PRIMARY KEY (rowid>?)"},
		rekeyToken:           {"SEARCH tokens USING INTEGER PRIMARY KEY"},
		selectEarliestNotice: {"SEARCH notices USING PRIMARY KEY (kind=?)"},
		selectNthNotice:      {"SEARCH notices USING PRIMARY KEY (kind=? AND end_us<?)"},
		deleteNotices:        {"SEARCH notices USING PRIMARY KEY (kind=? AND (end_us,id,before_us)<(?,?,?))"},
		selectFailing: {
			"SEARCH webhook_deliveries USING INDEX webhook_deliveries_due (webhook=? AND next_us>?)",
		},
	}
}

// InventoryStatements are the statements of the inventory: the index that each uses, and whether it sorts.
func InventoryStatements() map[string]struct {
	Index string
	Sorts bool
} {
	all := map[string]struct {
		Index string
		Sorts bool
	}{}
	type indexed struct {
		way
		index string
	}
	for _, desc := range []bool{false, true} {
		for _, w := range []indexed{
			{wayToken(), "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"}, {wayUser(1, userRevoked, 0), "tokens_user (user=? AND <expr>=? AND rowid>? AND rowid<?)"},
			{wayRevoked(), "tokens_revoked (id>? AND id<?)"},
			{wayTimes(), "tokens_expire (expire_us>? AND expire_us<?)"}, {wayTied(1), "tokens_expire (expire_us=? AND rowid>? AND rowid<?)"},
		} {
			for _, statement := range []string{w.pageOf(desc), w.endOf(inventoryStretch, desc)} {
				all[statement] = struct {
					Index string
					Sorts bool
				}{w.index, false}
			}
		}
		for _, w := range []indexed{
			{wayUser(1, ``, 0), "tokens_user (user=?"}, {wayUser(1, userUnrevoked, 0), "tokens_user (user=? AND <expr>>?"},
			{wayUser(1, userRevoked, 0), "tokens_user (user=? AND <expr>=?"}, {wayToken(), "INTEGER PRIMARY KEY (rowid>?"}, {wayTimes(), "tokens_expire (expire_us>?"},
		} {
			if strings.HasPrefix(w.by, `+`) { // its ids are sorted
				for _, statement := range []string{w.pageOf(desc), w.endOf(userStretch, desc)} {
					all[statement] = struct {
						Index string
						Sorts bool
					}{w.index, true}
				}
			}
			for _, column := range []string{idColumn, expireColumn} {
				all[w.sortedBy(column, desc)] = struct {
					Index string
					Sorts bool
				}{w.index, true}
			}
		}
	}
	return all
}

// SortedByUser are the statements that sort the tokens of each user, and the steps of their plans.
func SortedByUser() map[string][]string {
	const index = "COVERING INDEX tokens_user (user=? AND <expr>>? AND <expr><?)"
	return map[string][]string{
		selectUnrevokedTokens: {index, "SEARCH t USING INTEGER PRIMARY KEY (rowid=?)", "USE TEMP B-TREE FOR ORDER BY"},
		selectGranted():       {"SEARCH t USING INDEX tokens_user (user>? AND user<?)", "LAST TERM OF ORDER BY"},
	}
}

// ExceedingQuery is the statement of Exceeding, which sorts.
const ExceedingQuery = selectExceeding

// CredentialQuery is the statement of Lookup, for measuring the driver alone.
const CredentialQuery = selectCredential

// BoundUses bounds the last uses that wait.
func (o Options) BoundUses(tokens int64) Options {
	o.usesRoom = tokens
	return o
}

// Pragmas are the settings of every connection.
func Pragmas() []string { return db.CommonPragmas() }

// BeforeFeed has fn called before each look at the change feed.
func (o Options) BeforeFeed(fn func(context.Context) error) Options {
	o.beforeFeed = fn
	return o
}

// Listener hears what stores in PostgreSQL announce, as another process does.
func Listener(ctx context.Context, url string) (wait func() error, stop func()) {
	c, err := pgx.Connect(ctx, url)
	if err == nil {
		_, err = c.Exec(ctx, db.ListenChanges)
	}
	return func() error {
			if err != nil {
				return err
			}
			within, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			_, err := c.WaitForNotification(within)
			return err
		}, func() {
			if c != nil {
				_ = c.Close(context.WithoutCancel(ctx))
			}
		}
}

// NewestSchema is what this program's migrations end in.
const NewestSchema = newestSchema

// Statements whose plan in PostgreSQL is looked at.
const (
	LiveTokensQuery = selectLiveTokens
	RevokedQuery    = selectRevokedTokens
	UnrevokedQuery  = selectUnrevokedTokens
	EntriesQuery    = selectEntries
	EventsOfUser    = selectEventsOfUser
	EventsOfToken   = selectEventsOfToken
	UserQuery       = selectUser
	RevokeTokens    = revokeTokens
)

// PostgresForm is how PostgreSQL reads a statement.
func PostgresForm(query string) string { return db.PostgresForm(query) }

// Plan returns PostgreSQL's plan of a statement, whatever its parameters.
func (s *Store) Plan(ctx context.Context, query string) (string, error) {
	if err := s.Exec(ctx, `PREPARE looked_at AS `+db.PostgresForm(query)); err != nil {
		return "", err
	}
	defer func() { _ = s.Exec(ctx, `DEALLOCATE looked_at`) }()
	n := 0
	for ; strings.Contains(db.PostgresForm(query), fmt.Sprintf("$%d", n+1)); n++ {
	}
	lines, err := s.Texts(
		ctx,
		0,
		`EXPLAIN EXECUTE looked_at (`+strings.TrimSuffix(strings.Repeat("NULL, ", n), ", ")+`)`,
	)
	return strings.Join(lines, "\n"), err
}

// Spoiled writes something in a transaction that fails without the store's knowing.
func (s *Store) Spoiled(ctx context.Context) error {
	return s.transact(ctx, "write", func(t *tx) error {
		_, err := t.exec("write", insertPrefix, "lost")
		_, _ = t.c.Raw().ExecContext(ctx, `SELECT 1 / 0`)
		return err
	})
}

// HoldLookups keeps every connection for lookups from others.
func (s *Store) HoldLookups(ctx context.Context) (release func(), err error) {
	var held []*db.Conn
	for range s.lookups.Size() {
		c, err := s.lookups.Get(ctx)
		if err != nil {
			return nil, err
		}
		held = append(held, c)
	}
	return func() {
		for _, c := range held {
			s.lookups.Put(c)
		}
	}, nil
}

// PostgresConfig is what a URL of PostgreSQL means.
func PostgresConfig(url string) (*pgx.ConnConfig, error) { return db.ParsePostgresURL(url) }

// ForgetNotices are the statements that forget notices.
func ForgetNotices() []string { return []string{selectNthNotice, deleteNotices} }

// NoticeStatements are the statements that look for due notices, and the index that each goes along.
func NoticeStatements() map[string]string {
	return map[string]string{
		selectEndingTokens: "tokens_expire", selectEndingServices: "services_expire", selectIssued: "tokens_pkey",
		selectDueChecks: "idle_checks_due",
	}
}

// AsBefore26 has checksums made as programs made them that do not know the short form, or as they are made now.
func (s *Store) AsBefore26(before bool) { s.rows.short = !before }
