package store

import "database/sql"

// What PostgreSQL itself can tell of a schema. Pages that are broken it finds out by checksums, when they are read.
const (
	postgresInvalid = `
SELECT 'index ' || c.relname || ' is not valid' FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relnamespace = CAST(current_schema() AS regnamespace)
UNION ALL
SELECT 'rule ' || conname || ' was never checked' FROM pg_constraint
WHERE NOT convalidated AND connamespace = CAST(current_schema() AS regnamespace)`

	postgresTriggers = `
SELECT 'trigger ' || n.name || ' is missing or disabled'
FROM (VALUES ('events_no_update'), ('events_no_delete'), ('events_no_truncate'), ('tokens_stay_revoked'),
  ('services_stay_revoked'),
  ('access_tokens_stay_revoked'), ('families_stay_revoked'), ('refresh_tokens_stay_used'), ('released_grows'),
    ('released_stays'), ('sealed_raises_oldest'), ('events_of_sealed'),
  ('users_row_mac'), ('tokens_row_mac'), ('old_secrets_row_mac'), ('services_row_mac'),
  ('families_row_mac'), ('refresh_tokens_row_mac'), ('access_tokens_row_mac'), ('webhooks_row_mac'),
  ('provisioned_users_row_mac'), ('keys_seal_webhooks')) n (name)
WHERE NOT EXISTS (SELECT 1 FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
  WHERE t.tgname = n.name AND t.tgenabled = 'O' AND c.relnamespace = CAST(current_schema() AS regnamespace))`
)

func (t *readTx) checkPostgres(op string, add func(string)) (readable bool, err error) {
	for _, query := range []string{postgresInvalid, postgresTriggers} {
		err := t.each(op, query, func(rows *sql.Rows) error {
			var text string
			err := rows.Scan(&text)
			add("database: " + text)
			return err
		})
		if err != nil {
			return false, err
		}
	}
	return true, t.checkPositions(op, add)
}
