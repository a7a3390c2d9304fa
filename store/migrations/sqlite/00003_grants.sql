-- What comes of personal access tokens: short-lived access tokens, and families of refresh tokens. Each names the secret
-- that it came of by its serial, which is what tokens.rotations was then.

-- +goose Up

-- A family's refresh tokens are made one from another; the newest is the one not used yet.
CREATE TABLE families (
  id            INTEGER PRIMARY KEY,
  token_id      INTEGER NOT NULL REFERENCES tokens (id),
  serial        INTEGER NOT NULL,
  client_id     TEXT,
  authenticated INTEGER NOT NULL CHECK (authenticated IN (0, 1)),
  scopes        TEXT    NOT NULL CHECK (scopes <> ''),
  audiences     TEXT    NOT NULL CHECK (audiences <> ''),
  issue_us      INTEGER NOT NULL,
  expire_us     INTEGER NOT NULL,
  revoke_us     INTEGER,
  revoked_by    TEXT,
  revoke_reason TEXT,
  CHECK ((revoke_us IS NULL) = (revoked_by IS NULL)),
  CHECK (authenticated = 0 OR client_id IS NOT NULL)
) STRICT;

-- The limit looks at live families only, and at nothing but this index.
CREATE INDEX families_live ON families (token_id, serial, expire_us, revoke_us) WHERE revoke_us IS NULL;
CREATE INDEX families_expire ON families (expire_us);

-- +goose StatementBegin
CREATE TRIGGER families_stay_revoked BEFORE UPDATE OF revoke_us ON families
WHEN OLD.revoke_us IS NOT NULL AND NEW.revoke_us IS NOT OLD.revoke_us
BEGIN SELECT RAISE(ABORT, 'a revocation is final'); END;
-- +goose StatementEnd

CREATE TABLE refresh_tokens (
  id       INTEGER PRIMARY KEY,
  family   INTEGER NOT NULL REFERENCES families (id),
  key      INTEGER NOT NULL REFERENCES keys (num),
  digest   BLOB    NOT NULL CHECK (length(digest) = 32),
  issue_us INTEGER NOT NULL,
  use_us   INTEGER
) STRICT;

CREATE INDEX refresh_tokens_family ON refresh_tokens (family);

-- +goose StatementBegin
CREATE TRIGGER refresh_tokens_stay_used BEFORE UPDATE OF use_us ON refresh_tokens
WHEN OLD.use_us IS NOT NULL AND NEW.use_us IS NOT OLD.use_us
BEGIN SELECT RAISE(ABORT, 'a refresh token is used once'); END;
-- +goose StatementEnd

CREATE TABLE access_tokens (
  id            INTEGER PRIMARY KEY,
  token_id      INTEGER NOT NULL REFERENCES tokens (id),
  serial        INTEGER NOT NULL,
  family        INTEGER REFERENCES families (id),
  key           INTEGER NOT NULL REFERENCES keys (num),
  digest        BLOB    NOT NULL CHECK (length(digest) = 32),
  scopes        TEXT    NOT NULL CHECK (scopes <> ''),
  audiences     TEXT,
  client_id     TEXT,
  issue_us      INTEGER NOT NULL,
  expire_us     INTEGER NOT NULL,
  revoke_us     INTEGER,
  revoked_by    TEXT,
  revoke_reason TEXT,
  CHECK ((revoke_us IS NULL) = (revoked_by IS NULL))
) STRICT;

-- The limit looks at live access tokens only, and at nothing but this index.
CREATE INDEX access_tokens_live ON access_tokens (token_id, serial, expire_us, revoke_us) WHERE revoke_us IS NULL;
CREATE INDEX access_tokens_family ON access_tokens (family) WHERE family IS NOT NULL;
CREATE INDEX access_tokens_expire ON access_tokens (expire_us);

-- +goose StatementBegin
CREATE TRIGGER access_tokens_stay_revoked BEFORE UPDATE OF revoke_us ON access_tokens
WHEN OLD.revoke_us IS NOT NULL AND NEW.revoke_us IS NOT OLD.revoke_us
BEGIN SELECT RAISE(ABORT, 'a revocation is final'); END;
-- +goose StatementEnd

-- An exchange may name an audience by its resource (RFC 8707).
CREATE INDEX audiences_resource ON audiences (resource, id) WHERE resource IS NOT NULL;
