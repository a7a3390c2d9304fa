-- Users as an identity provider knows them, by SCIM: the names that it gives them, and nothing else. Whether a user is active is
-- in users. A program from before this table deletes a user and leaves the row, which is then no user's: every query joins users.
-- security_events has the digest of each security event token that was taken, for as long as its time is accepted.

-- +goose Up

CREATE TABLE provisioned_users (
  user_key      bigint NOT NULL PRIMARY KEY REFERENCES users (key),
  id            text   COLLATE "C" NOT NULL,
  user_name     text   NOT NULL,
  user_name_key text   COLLATE "C" NOT NULL,
  external_id   text   COLLATE "C",
  display_name  text,
  inactive      bigint NOT NULL CHECK (inactive IN (0, 1)),
  create_us     bigint NOT NULL,
  update_us     bigint NOT NULL
);

CREATE UNIQUE INDEX provisioned_users_id ON provisioned_users (id);
CREATE UNIQUE INDEX provisioned_users_name ON provisioned_users (user_name_key);
CREATE INDEX provisioned_users_external ON provisioned_users (external_id) WHERE external_id IS NOT NULL;

CREATE TABLE security_events (
  digest    bytea  NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
  expire_us bigint NOT NULL
);

CREATE INDEX security_events_expire ON security_events (expire_us);
