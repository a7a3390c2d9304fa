package store

import "strings"

// copiedTable is a table as a copy reads and writes it.
type copiedTable struct {
	name    string
	key     string // the columns of its primary key, by which both databases sort alike
	columns string // all of them
	// sequence is the column that PostgreSQL numbers; empty: none. Where counted, SQLite remembers the last number too,
	// so that it is not given twice when the rows are gone.
	sequence string
	counted  bool
}

// copiedTables are all tables with rows of patd's, each after those that it points to. What the migrations themselves
// fill is not among them: the version of the schema, and its minimum compatible version.
func copiedTables() []copiedTable {
	return []copiedTable{
		{name: "keys", key: "num", columns: "num name check_value create_us retire_us", sequence: "num"},
		{name: "prefixes", key: "prefix", columns: "prefix"},
		{name: "users", key: "key", columns: "key user state features create_us delete_us row_mac", sequence: "key"},
		{
			name:    "provisioned_users",
			key:     "user_key",
			columns: "user_key id user_name user_name_key external_id display_name inactive create_us update_us row_mac",
		},
		{name: "security_events", key: "digest", columns: "digest expire_us"},
		{name: "suspended_scopes", key: "user", columns: "user scopes asked_us"},
		{name: "tokens", key: "id",
			columns: "id user key digest rotations name name_key scopes issue_us expire_us audiences cidrs labels " +
				"description revoke_us revoked_by revoke_reason last_used_us last_used_ip blocked_by renew_us " +
				"row_mac self_rotate_until_us self_mac paused paused_mac paused_end_us end_set_us"},
		{name: "uses", key: "token_id", columns: "token_id use_us use_ip"},
		{name: "use_details", key: "token_id", columns: "token_id detail"},
		{name: "use_details_since", key: "one", columns: "one begin_us"},
		{name: "old_secrets", key: "token_id serial",
			columns: "token_id serial key digest until_us ended_us next_use_us rotate_us retire_on_use change " +
				"expire_before_us expire_after_us renew_before_us dropped blocked_before row_mac before_mac " +
				"presented_us"},
		{name: "requests", key: "key", columns: "key fingerprint token_id sealed expire_us"},
		{name: "services", key: "id",
			columns: "id name permissions audience key digest issue_us expire_us revoke_us revoked_by revoke_reason " +
				"rotations rotate_us old_key old_digest old_until_us row_mac"},
		{name: "families", key: "id",
			columns: "id token_id serial client_id authenticated scopes audiences issue_us expire_us revoke_us " +
				"revoked_by revoke_reason row_mac"},
		{name: "refresh_tokens", key: "id", columns: "id family key digest issue_us use_us row_mac"},
		{name: "access_tokens", key: "id",
			columns: "id token_id serial family key digest scopes audiences client_id issue_us expire_us " +
				"revoke_us revoked_by revoke_reason row_mac"},
		{name: "features", key: "name",
			columns: "name display_name description consent is_default optional published is_system search"},
		{name: "audiences", key: "id",
			columns: "id display_name resource default_ttl_us max_ttl_us allow_never allow_offline access_ttl_us " +
				"access_format search require_named"},
		{
			name: "page_sessions",
			key:  "digest",
			columns: "digest id user service return_url permissions features issue_us seen_us expire_us end_us peer_ip " +
				"agent hint draft",
		},
		{name: "page_handoffs", key: "digest",
			columns: "digest user service return_url expire_us session_us use_us"},
		{name: "webhooks", key: "num",
			columns: "num id url description event_types users audiences labels enabled disable_us disable_reason " +
				"create_us update_us secret_key secret old_secret_key old_secret old_until_us cursor_seq lease_holder " +
				"lease_us lease_num row_mac"},
		{name: "webhook_deliveries", key: "webhook seq item",
			columns: "webhook seq item id type subject data state create_us since_us next_us end_us attempts " +
				"attempt_us duration_us status error traceparent"},
		{name: "bulk_revocations", key: "plan",
			columns: "plan actor peer_ip reason count revoked begin_us work_us end_us"},
		{name: "bulk_parts", key: "plan num", columns: "plan num ids"},
		{name: "narrowings", key: "plan",
			columns: "plan actor peer_ip cutoff_us unscoped count narrowed scopes begin_us work_us end_us"},
		{name: "narrowing_parts", key: "plan num", columns: "plan num ids"},
		{name: "notices", key: "kind end_us id before_us", columns: "kind end_us id before_us"},
		{name: "notice_marks", key: "name", columns: "name at_us note"},
		{name: "idle_checks", key: "token_id",
			columns: "token_id due_us unused_us announced_us announce_us resume_us"},
		{name: "events", key: "seq",
			columns:  "seq time_us actor action outcome user token_id service peer_ip reason detail writer traceparent",
			sequence: "seq", counted: true},
		{name: "released", key: "one", columns: "one seq before_us"},
		{name: "changes", key: "seq", columns: "seq time_us token_id user service", sequence: "seq", counted: true},
		// The last: from then on events without a writer are refused, and those of earlier programs have none.
		{name: "sealed", key: "one", columns: "one begin_us finish_us later_us"},
	}
}

func (t copiedTable) columnNames() []string { return strings.Fields(t.columns) }

// quotedNames are columns in quotes, for user is a word of PostgreSQL's.
func quotedNames(columns string) string {
	return `"` + strings.Join(strings.Fields(columns), `", "`) + `"`
}

// The statements of a copy, made of the list above and nothing else.

func (t copiedTable) selectAll() string {
	return `SELECT ` + quotedNames(t.columns) + ` FROM ` + t.name + ` ORDER BY ` + quotedNames(t.key)
}

func (t copiedTable) insert() string {
	return `INSERT INTO ` + t.name + ` (` + quotedNames(t.columns) + `) VALUES (?` + strings.Repeat(`, ?`,
		len(t.columnNames())-1) + `)`
}

func (t copiedTable) selectAny() string { return `SELECT EXISTS (SELECT 1 FROM ` + t.name + `)` }

func (t copiedTable) selectMax() string {
	return `SELECT coalesce(max(` + quotedNames(t.sequence) + `), 0) FROM ` + t.name
}

func (t copiedTable) analyze() string { return `ANALYZE ` + t.name }
