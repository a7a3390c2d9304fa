-- The first schema. Times are microseconds since 1970 in UTC; "never" is the largest integer. A token id is the 64
-- bits of the id as a signed integer. What is absent is NULL, which costs a row one byte. Lists are texts: scopes
-- and features separated by a space, audiences and networks by a line end. Designed for ten million tokens.

-- +goose Up

-- The digest keys by name: never the keys themselves. Rows name a key by its small number.
CREATE TABLE keys (
  num         INTEGER PRIMARY KEY,
  name        TEXT    NOT NULL UNIQUE,
  check_value BLOB    NOT NULL CHECK (length(check_value) = 32),
  create_us   INTEGER NOT NULL,
  retire_us   INTEGER
) STRICT;

-- Every personal prefix that secrets were minted under.
CREATE TABLE prefixes (
  prefix TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- A deleted user's row stays, for its revoked tokens point to it; the id may then be inserted again.
CREATE TABLE users (
  key       INTEGER PRIMARY KEY,
  user      TEXT    NOT NULL,
  state     INTEGER NOT NULL CHECK (state IN (1, 2)),
  features  TEXT,
  create_us INTEGER NOT NULL,
  delete_us INTEGER
) STRICT;

CREATE UNIQUE INDEX users_live ON users (user) WHERE delete_us IS NULL;

-- rotations counts the secrets that were rotated away: only when it is not zero does a lookup read old_secrets.
CREATE TABLE tokens (
  id            INTEGER PRIMARY KEY,
  user          INTEGER NOT NULL REFERENCES users (key),
  key           INTEGER NOT NULL REFERENCES keys (num),
  digest        BLOB    NOT NULL CHECK (length(digest) = 32),
  rotations     INTEGER NOT NULL DEFAULT 0,
  name          TEXT    NOT NULL,
  name_key      TEXT    NOT NULL,
  scopes        TEXT    NOT NULL CHECK (scopes <> ''),
  issue_us      INTEGER NOT NULL,
  expire_us     INTEGER NOT NULL,
  audiences     TEXT,
  cidrs         TEXT,
  labels        TEXT,
  description   TEXT,
  revoke_us     INTEGER,
  revoked_by    TEXT,
  revoke_reason TEXT,
  last_used_us  INTEGER,
  last_used_ip  BLOB,
  CHECK ((revoke_us IS NULL) = (revoked_by IS NULL))
) STRICT;

-- Newest-first listing: the row's id follows the user in the index.
CREATE INDEX tokens_user ON tokens (user);
-- The limit and unique names look at live tokens only, and at nothing but this index: revoke_us, always NULL, costs a
-- byte and saves going to the row for it.
CREATE INDEX tokens_live ON tokens (user, expire_us, name_key, revoke_us) WHERE revoke_us IS NULL;

-- +goose StatementBegin
CREATE TRIGGER tokens_stay_revoked BEFORE UPDATE OF revoke_us ON tokens
WHEN OLD.revoke_us IS NOT NULL AND NEW.revoke_us IS NOT OLD.revoke_us
BEGIN SELECT RAISE(ABORT, 'a revocation is final'); END;
-- +goose StatementEnd

CREATE TABLE old_secrets (
  token_id INTEGER NOT NULL REFERENCES tokens (id),
  serial   INTEGER NOT NULL,
  key      INTEGER NOT NULL REFERENCES keys (num),
  digest   BLOB    NOT NULL CHECK (length(digest) = 32),
  until_us INTEGER NOT NULL,
  PRIMARY KEY (token_id, serial)
) STRICT, WITHOUT ROWID;

-- Idempotent requests. sealed is the secret under the caller's idempotency key, which is not stored.
CREATE TABLE requests (
  key         BLOB    NOT NULL PRIMARY KEY CHECK (length(key) = 32),
  fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),
  token_id    INTEGER NOT NULL REFERENCES tokens (id) DEFERRABLE INITIALLY DEFERRED,
  sealed      BLOB,
  expire_us   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX requests_sealed ON requests (token_id) WHERE sealed IS NOT NULL;
CREATE INDEX requests_expire ON requests (expire_us);

CREATE TABLE services (
  id            INTEGER PRIMARY KEY,
  name          TEXT    NOT NULL,
  permissions   TEXT    NOT NULL,
  audience      TEXT,
  key           INTEGER NOT NULL REFERENCES keys (num),
  digest        BLOB    NOT NULL CHECK (length(digest) = 32),
  issue_us      INTEGER NOT NULL,
  expire_us     INTEGER NOT NULL,
  revoke_us     INTEGER,
  revoked_by    TEXT,
  revoke_reason TEXT,
  CHECK ((revoke_us IS NULL) = (revoked_by IS NULL))
) STRICT;

CREATE INDEX services_name ON services (name);

-- +goose StatementBegin
CREATE TRIGGER services_stay_revoked BEFORE UPDATE OF revoke_us ON services
WHEN OLD.revoke_us IS NOT NULL AND NEW.revoke_us IS NOT OLD.revoke_us
BEGIN SELECT RAISE(ABORT, 'a revocation is final'); END;
-- +goose StatementEnd

-- The audit log. It only grows.
CREATE TABLE events (
  seq      INTEGER PRIMARY KEY AUTOINCREMENT,
  time_us  INTEGER NOT NULL,
  actor    TEXT    NOT NULL,
  action   TEXT    NOT NULL,
  outcome  INTEGER NOT NULL CHECK (outcome IN (1, 2)),
  user     TEXT,
  token_id INTEGER,
  service  TEXT,
  peer_ip  BLOB,
  reason   TEXT,
  detail   TEXT
) STRICT;

CREATE INDEX events_user ON events (user) WHERE user IS NOT NULL;
CREATE INDEX events_token ON events (token_id) WHERE token_id IS NOT NULL;

-- +goose StatementBegin
CREATE TRIGGER events_no_update BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER events_no_delete BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
-- +goose StatementEnd

-- The change feed: what is no longer as it was. Old entries are pruned; positions are never used twice.
CREATE TABLE changes (
  seq      INTEGER PRIMARY KEY AUTOINCREMENT,
  time_us  INTEGER NOT NULL,
  token_id INTEGER,
  user     TEXT,
  service  TEXT
) STRICT;
