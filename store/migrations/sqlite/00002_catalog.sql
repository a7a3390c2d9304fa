-- The catalogue of features, audiences with their policies, and blocks of tokens. Lifetimes are microseconds; one that
-- is left to the server is NULL. search is what a list's q looks in, folded as names are, its parts on lines.

-- +goose Up

CREATE TABLE features (
  name         TEXT    NOT NULL PRIMARY KEY,
  display_name TEXT,
  description  TEXT,
  consent      INTEGER NOT NULL CHECK (consent IN (1, 2, 3)),
  is_default   INTEGER NOT NULL CHECK (is_default IN (0, 1)),
  optional     INTEGER NOT NULL CHECK (optional IN (0, 1)),
  published    INTEGER NOT NULL CHECK (published IN (0, 1)),
  is_system    INTEGER NOT NULL CHECK (is_system IN (0, 1)),
  search       TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- A mint that names no scopes reads the default features, and the public metadata document the published ones: neither
-- reads the others.
CREATE INDEX features_default ON features (name) WHERE is_default = 1;
CREATE INDEX features_published ON features (name) WHERE published = 1;

CREATE TABLE audiences (
  id             TEXT    NOT NULL PRIMARY KEY,
  display_name   TEXT,
  resource       TEXT,
  default_ttl_us INTEGER CHECK (default_ttl_us > 0),
  max_ttl_us     INTEGER CHECK (max_ttl_us > 0),
  allow_never    INTEGER NOT NULL CHECK (allow_never IN (0, 1)),
  allow_offline  INTEGER NOT NULL CHECK (allow_offline IN (0, 1)),
  access_ttl_us  INTEGER CHECK (access_ttl_us > 0),
  access_format  INTEGER NOT NULL CHECK (access_format IN (1, 2)),
  search         TEXT    NOT NULL,
  CHECK (default_ttl_us <= max_ttl_us)
) STRICT, WITHOUT ROWID;

-- The audience whose policy blocks the token. The rows that are there are read, here and for the indexes, and stay as
-- they are: an upgrade takes the time to read them, and no room.
ALTER TABLE tokens ADD COLUMN blocked_by TEXT;

-- An audience's blocks, oldest token first.
CREATE INDEX tokens_blocked ON tokens (id, blocked_by) WHERE blocked_by IS NOT NULL;
-- A policy's dry run looks at the live tokens of audiences that end after an instant, and at nothing but this index:
-- tokens without audiences are not in it.
CREATE INDEX tokens_exceeding ON tokens (expire_us, blocked_by, revoke_us, audiences)
WHERE audiences IS NOT NULL AND revoke_us IS NULL;
