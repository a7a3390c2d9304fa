-- Users as an identity provider knows them, by SCIM: the names that it gives them, and nothing else. Whether a user is active is
-- in users. A program from before this table deletes a user and leaves the row, which is then no user's: every query joins users.
-- security_events has the digest of each security event token that was taken, for as long as its time is accepted.

-- +goose Up

CREATE TABLE provisioned_users (
  user_key      INTEGER NOT NULL PRIMARY KEY REFERENCES users (key),
  id            TEXT    NOT NULL,
  user_name     TEXT    NOT NULL,
  user_name_key TEXT    NOT NULL,
  external_id   TEXT,
  display_name  TEXT,
  inactive      INTEGER NOT NULL CHECK (inactive IN (0, 1)),
  create_us     INTEGER NOT NULL,
  update_us     INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX provisioned_users_id ON provisioned_users (id);
CREATE UNIQUE INDEX provisioned_users_name ON provisioned_users (user_name_key);
CREATE INDEX provisioned_users_external ON provisioned_users (external_id) WHERE external_id IS NOT NULL;

CREATE TABLE security_events (
  digest    BLOB    NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
  expire_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX security_events_expire ON security_events (expire_us);
