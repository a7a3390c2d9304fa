package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"patd/store/internal/db"
	"patd/tokens"
)

const maxFindings = 100 // of each kind

const (
	integrityCheck  = `PRAGMA integrity_check(100)`
	foreignKeyCheck = `PRAGMA foreign_key_check`
)

// prunedBefore is the moment before which events may have been deleted: what was done before it needs none.
const prunedBefore = `(SELECT coalesce(max(before_us), 0) FROM released)`

// Invariants that neither the pages nor the constraints hold. Each statement returns what breaks one: ?1 is the time,
// ?2 how many to return.
const (
	checkTokenEvents = `
SELECT t.id FROM tokens t
WHERE t.issue_us >= ` + prunedBefore + ` AND NOT EXISTS (SELECT 1 FROM events e WHERE e.token_id = t.id
  AND e.outcome = 1) AND CAST(?1 AS BIGINT) > 0 LIMIT ?2`

	checkRevokeEvents = `
SELECT t.id FROM tokens t JOIN users u ON u.key = t.user
WHERE t.revoke_us IS NOT NULL AND t.revoke_us >= ` + prunedBefore + `
  AND NOT EXISTS (SELECT 1 FROM events e WHERE e.token_id = t.id AND e.action IN ('token.revoke', 'token.revoke_all')
    AND e.outcome = 1)
  AND NOT EXISTS (SELECT 1 FROM events e WHERE e.user = u.user AND e.action IN ('token.revoke_all', 'user.delete')
    AND e.outcome = 1)
  AND CAST(?1 AS BIGINT) > 0 LIMIT ?2`

	checkOldSecrets = `
SELECT t.id FROM tokens t
WHERE CAST(?1 AS BIGINT) > 0 AND t.rotations > 0
  AND NOT EXISTS (SELECT 1 FROM old_secrets o WHERE o.token_id = t.id AND o.serial = t.rotations)
UNION ALL
SELECT o.token_id FROM old_secrets o LEFT JOIN tokens t ON t.id = o.token_id
WHERE t.id IS NULL OR o.serial > t.rotations LIMIT ?2`

	checkLiveSecrets = `
SELECT token_id FROM old_secrets WHERE until_us > ?1 GROUP BY token_id HAVING count(*) > 1 LIMIT ?2`

	checkNames = `
SELECT max(id) FROM tokens t WHERE revoke_us IS NULL AND expire_us > ?1
GROUP BY "user", ` + nameKey + ` HAVING count(*) > 1 LIMIT ?2`

	checkDeletedUsers = `
SELECT t.id FROM users u JOIN tokens t INDEXED BY tokens_user ON t.user = u.key AND ` + liveUntil + ` > 0
WHERE u.delete_us IS NOT NULL AND CAST(?1 AS BIGINT) > 0 LIMIT ?2`

	checkSealed = `
SELECT t.id FROM requests r JOIN (SELECT id, revoke_us FROM tokens UNION ALL SELECT id, revoke_us
  FROM services) t ON t.id = r.token_id
WHERE r.sealed IS NOT NULL AND t.revoke_us IS NOT NULL AND CAST(?1 AS BIGINT) > 0 LIMIT ?2`

	// No constraint holds this: a request is of a row in one of three tables. A webhook may be deleted; what is sealed
	// of its requests is dropped then.
	checkRequests = `
SELECT r.token_id FROM requests r
WHERE r.sealed IS NOT NULL AND NOT EXISTS (SELECT 1 FROM tokens t WHERE t.id = r.token_id)
  AND NOT EXISTS (SELECT 1 FROM services s WHERE s.id = r.token_id)
  AND NOT EXISTS (SELECT 1 FROM webhooks w WHERE w.num = r.token_id) AND CAST(?1 AS BIGINT) > 0 LIMIT ?2`

	checkServiceEvents = `
SELECT id FROM services
WHERE issue_us >= ` + prunedBefore + ` AND name NOT IN (SELECT service FROM events WHERE service IS NOT NULL
  AND outcome = 1) AND CAST(?1 AS BIGINT) > 0 LIMIT ?2`

	checkRetiredKeys = `
SELECT t.id FROM keys k JOIN tokens t ON t.key = k.num
WHERE k.retire_us IS NOT NULL AND t.revoke_us IS NULL AND t.expire_us > ?1 AND t.expire_us > k.retire_us LIMIT ?2`

	checkBlockEvents = `
SELECT t.id FROM tokens t INDEXED BY tokens_blocked
WHERE t.blocked_by IS NOT NULL AND t.issue_us >= ` + prunedBefore + ` AND CAST(?1 AS BIGINT) > 0
  AND NOT EXISTS (SELECT 1 FROM events e WHERE e.token_id = t.id AND e.action IN ('token.block', 'token.pause') AND e.outcome = 1)
  LIMIT ?2`

	checkFeatureEvents = `
SELECT name FROM features
WHERE ` + prunedBefore + ` = 0 AND name NOT IN (SELECT detail FROM events WHERE action = 'feature.create'
  AND outcome = 1 AND detail IS NOT NULL) AND CAST(?1 AS BIGINT) > 0 LIMIT ?2`

	checkAudienceEvents = `
SELECT id FROM audiences
WHERE ` + prunedBefore + ` = 0 AND id NOT IN (SELECT detail FROM events WHERE action = 'audience.create' AND outcome = 1
  AND detail IS NOT NULL) AND CAST(?1 AS BIGINT) > 0 LIMIT ?2`

	checkWebhookEvents = `
SELECT id FROM webhooks
WHERE ` + prunedBefore + ` = 0 AND id NOT IN (SELECT detail FROM events WHERE action = 'webhook.create' AND outcome = 1
  AND detail IS NOT NULL) AND CAST(?1 AS BIGINT) > 0 LIMIT ?2`

	checkTriggers = `
SELECT column1 FROM (VALUES ('events_no_update'), ('events_no_delete'), ('tokens_stay_revoked'),
  ('services_stay_revoked'),
  ('access_tokens_stay_revoked'), ('families_stay_revoked'), ('refresh_tokens_stay_used'), ('released_grows'),
    ('released_stays'), ('sealed_raises_oldest'), ('events_of_sealed'),
  ('users_row_mac'), ('tokens_row_mac'), ('old_secrets_row_mac'), ('services_row_mac'),
  ('families_row_mac'), ('refresh_tokens_row_mac'), ('access_tokens_row_mac'), ('webhooks_row_mac'),
  ('provisioned_users_row_mac'), ('keys_seal_webhooks'))
WHERE column1 NOT IN (SELECT name FROM sqlite_schema WHERE type = 'trigger')`
)

// invariant is a statement and what its rows mean; %s stands for the id, or for the name where rows have that.
type invariant struct{ query, finding string }

func invariants() []invariant {
	return []invariant{
		{checkTokenEvents, "token %s has no audit event"},
		{checkRevokeEvents, "token %s is revoked without an audit event"},
		{checkOldSecrets, "token %s: its rotated secrets do not agree with its number of rotations"},
		{checkLiveSecrets, "token %s has more than one rotated secret in its grace"},
		{checkNames, "token %s has the name of another live token of its user"},
		{checkDeletedUsers, "token %s is not revoked, and its user is deleted"},
		{checkSealed, "token %s is revoked, and a sealed secret of it is kept"},
		{checkRequests, "a request made token %s, which does not exist"},
		{checkServiceEvents, "service %s has no audit event"},
		{checkRetiredKeys, "token %s is live under a retired key"},
		{checkBlockEvents, "token %s is blocked without an audit event"},
		{checkFeatureEvents, "feature %s has no audit event"},
		{checkAudienceEvents, "audience %s has no audit event"},
		{checkWebhookEvents, "webhook %s has no audit event"},
	}
}

const countRecords = `SELECT (SELECT count(*) FROM tokens), (SELECT count(*) FROM services)`

// Count counts the tokens and the services, whatever their state.
func (s *Store) Count(ctx context.Context) (tokens, services int64, err error) {
	err = s.views.Use(ctx, func(c *db.Conn) error { return c.One(ctx, countRecords, []any{&tokens, &services}) })
	return tokens, services, db.Fault("count what the store holds", err)
}

const (
	sizeOfFile     = `SELECT (SELECT page_count FROM pragma_page_count()) * (SELECT page_size FROM pragma_page_size())`
	sizeOfPostgres = `SELECT pg_database_size(current_database())`
)

// Size returns how many bytes the database takes. With SQLite its log of writes is not counted.
func (s *Store) Size(ctx context.Context) (n int64, err error) {
	err = s.views.Use(ctx, func(c *db.Conn) error {
		query := sizeOfFile
		if c.Dialect().Remote {
			query = sizeOfPostgres
		}
		return c.One(ctx, query, []any{&n})
	})
	return n, db.Fault("read the size of the store", err)
}

// Check reads the whole store and returns what is wrong with it, in words for an operator; none when it is sound.
// Its error says that it could not look.
func (s *Store) Check(ctx context.Context) (findings []string, err error) {
	err = s.View(ctx, func(rt tokens.ReadTx) error {
		t, ok := rt.(*readTx)
		if !ok {
			return fmt.Errorf("check the store: unexpected transaction %T", rt)
		}
		findings, err = t.check(db.Micros(s.options.Now()))
		return err
	})
	return findings, err
}

func (t *readTx) check(nowUS int64) ([]string, error) {
	const op = "check the store"
	findings := []string{}
	add := func(text string) { findings = append(findings, text) }
	database := t.checkSQLite
	if t.c.Dialect().Remote {
		database = t.checkPostgres
	}
	if readable, err := database(op, add); err != nil || !readable {
		return findings, err
	}
	for _, inv := range append(invariants(), grantInvariants()...) {
		err := t.each(op, inv.query, func(rows *sql.Rows) error {
			var key any
			err := rows.Scan(&key)
			if id, ok := key.(int64); ok {
				key = tokens.ID(id)
			}
			add(fmt.Sprintf(inv.finding, key))
			return err
		}, nowUS, maxFindings)
		if err != nil {
			return nil, err
		}
	}
	return findings, t.checkRows(op, add)
}

// checkSQLite looks at the file, at what points to what, and at the rules that stand in the schema. What rests on
// broken pages means nothing: they are not readable.
func (t *readTx) checkSQLite(op string, add func(string)) (readable bool, err error) {
	readable = true
	text := func(format string, spare ...string) func(*sql.Rows) error {
		return func(rows *sql.Rows) error {
			var text string
			err := rows.Scan(&text)
			if !slices.Contains(spare, text) {
				readable = false
				add(fmt.Sprintf(format, text))
			}
			return err
		}
	}
	if err := t.each(op, integrityCheck, text("database: %s", "ok")); err != nil || !readable {
		return false, err
	}
	if err := t.checkReferences(op, add); err != nil {
		return false, err
	}
	if err := t.each(op, checkTriggers, text("database: trigger %s is missing")); err != nil {
		return false, err
	}
	return true, t.checkPositions(op, add)
}

func (t *readTx) checkReferences(op string, add func(string)) error {
	found := 0
	return t.each(op, foreignKeyCheck, func(rows *sql.Rows) error {
		var (
			table, parent string
			row, key      sql.NullInt64
		)
		err := rows.Scan(&table, &row, &parent, &key)
		if found++; found <= maxFindings {
			add(fmt.Sprintf("%s: row %s points to a row of %s that does not exist", table, tokens.ID(row.Int64),
				parent))
		}
		return err
	})
}
