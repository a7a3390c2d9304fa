-- What is known of the uses of each token beside the last one: for each scope the day and a rough count, and the last
-- addresses and asking services. It is a text of lines, see the package store. Like uses it points to no token.
--
-- paused are scopes that were granted and are not in effect: they are not in scopes, so that a program from before this
-- migration does not have them in effect either. paused_mac is their keyed checksum, paused_end_us when the first of them
-- is removed for good. A token that has no other scope has a backslash in scopes, which is no scope.

-- +goose Up

CREATE TABLE use_details (
  token_id INTEGER PRIMARY KEY,
  detail   TEXT    NOT NULL
) STRICT;

-- Since when uses are recorded by scope, where there were tokens before. No row: since ever.
CREATE TABLE use_details_since (
  one      INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
  begin_us INTEGER NOT NULL
) STRICT;

INSERT INTO use_details_since (one, begin_us)
SELECT 1, CAST(strftime('%s', 'now') AS INTEGER) * 1000000 WHERE EXISTS (SELECT 1 FROM tokens);

ALTER TABLE tokens ADD COLUMN paused TEXT;
ALTER TABLE tokens ADD COLUMN paused_mac BLOB;
ALTER TABLE tokens ADD COLUMN paused_end_us INTEGER;

CREATE INDEX tokens_paused ON tokens (paused_end_us) WHERE paused_end_us IS NOT NULL AND revoke_us IS NULL;

-- Narrowings of many tokens, as bulk_revocations and bulk_parts are revocations. A program from before this migration
-- carries none of them on. cutoff_us: scopes that were used since are left alone; NULL: those that were ever used.
CREATE TABLE narrowings (
  plan      BLOB    NOT NULL PRIMARY KEY CHECK (length(plan) = 32),
  actor     TEXT    NOT NULL,
  peer_ip   BLOB,
  cutoff_us INTEGER,
  unscoped  INTEGER NOT NULL CHECK (unscoped IN (0, 1)),
  count     INTEGER NOT NULL,
  narrowed  INTEGER NOT NULL,
  scopes    INTEGER NOT NULL,
  begin_us  INTEGER NOT NULL,
  work_us   INTEGER NOT NULL,
  end_us    INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX narrowings_open ON narrowings (work_us) WHERE end_us IS NULL;

CREATE TABLE narrowing_parts (
  plan BLOB    NOT NULL REFERENCES narrowings (plan),
  num  INTEGER NOT NULL,
  ids  BLOB    NOT NULL,
  PRIMARY KEY (plan, num)
) STRICT, WITHOUT ROWID;
