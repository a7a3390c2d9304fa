-- The catalogue of features, audiences with their policies, and blocks of tokens. Lifetimes are microseconds; one that
-- is left to the server is NULL. search is what a list's q looks in, folded as names are, its parts on lines.

-- +goose Up

CREATE TABLE features (
  name         text   COLLATE "C" NOT NULL PRIMARY KEY,
  display_name text,
  description  text,
  consent      bigint NOT NULL CHECK (consent IN (1, 2, 3)),
  is_default   bigint NOT NULL CHECK (is_default IN (0, 1)),
  optional     bigint NOT NULL CHECK (optional IN (0, 1)),
  published    bigint NOT NULL CHECK (published IN (0, 1)),
  is_system    bigint NOT NULL CHECK (is_system IN (0, 1)),
  search       text   NOT NULL
);

CREATE INDEX features_default ON features (name) WHERE is_default = 1;
CREATE INDEX features_published ON features (name) WHERE published = 1;

CREATE TABLE audiences (
  id             text   COLLATE "C" NOT NULL PRIMARY KEY,
  display_name   text,
  resource       text   COLLATE "C",
  default_ttl_us bigint CHECK (default_ttl_us > 0),
  max_ttl_us     bigint CHECK (max_ttl_us > 0),
  allow_never    bigint NOT NULL CHECK (allow_never IN (0, 1)),
  allow_offline  bigint NOT NULL CHECK (allow_offline IN (0, 1)),
  access_ttl_us  bigint CHECK (access_ttl_us > 0),
  access_format  bigint NOT NULL CHECK (access_format IN (1, 2)),
  search         text   NOT NULL,
  CHECK (default_ttl_us <= max_ttl_us)
);

-- The audience whose policy blocks the token.
ALTER TABLE tokens ADD COLUMN blocked_by text;

CREATE INDEX tokens_blocked ON tokens (id, blocked_by) WHERE blocked_by IS NOT NULL;
CREATE INDEX tokens_exceeding ON tokens (expire_us, blocked_by, revoke_us, audiences, id)
WHERE audiences IS NOT NULL AND revoke_us IS NULL;
