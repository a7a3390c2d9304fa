-- What is known of the uses of each token beside the last one: for each scope the day and a rough count, and the last
-- addresses and asking services. It is a text of lines, see the package store. Like uses it points to no token.
--
-- paused are scopes that were granted and are not in effect: they are not in scopes, so that a program from before this
-- migration does not have them in effect either. paused_mac is their keyed checksum, paused_end_us when the first of them
-- is removed for good. A token that has no other scope has a backslash in scopes, which is no scope.

-- +goose Up

CREATE TABLE use_details (
  token_id bigint NOT NULL PRIMARY KEY,
  detail   text   NOT NULL
) WITH (fillfactor = 70);

-- Since when uses are recorded by scope, where there were tokens before. No row: since ever.
CREATE TABLE use_details_since (
  one      bigint NOT NULL PRIMARY KEY CHECK (one = 1),
  begin_us bigint NOT NULL
);

INSERT INTO use_details_since (one, begin_us)
SELECT 1, CAST(floor(extract(epoch FROM now())) AS bigint) * 1000000 WHERE EXISTS (SELECT 1 FROM tokens);

ALTER TABLE tokens ADD COLUMN paused text;
ALTER TABLE tokens ADD COLUMN paused_mac bytea;
ALTER TABLE tokens ADD COLUMN paused_end_us bigint;

CREATE INDEX tokens_paused ON tokens (paused_end_us) WHERE paused_end_us IS NOT NULL AND revoke_us IS NULL;

-- Narrowings of many tokens, as bulk_revocations and bulk_parts are revocations. A program from before this migration
-- carries none of them on. cutoff_us: scopes that were used since are left alone; NULL: those that were ever used.
CREATE TABLE narrowings (
  plan      bytea   NOT NULL PRIMARY KEY CHECK (length(plan) = 32),
  actor     text    NOT NULL,
  peer_ip   bytea,
  cutoff_us bigint,
  unscoped  bigint NOT NULL CHECK (unscoped IN (0, 1)),
  count     bigint NOT NULL,
  narrowed  bigint NOT NULL,
  scopes    bigint NOT NULL,
  begin_us  bigint NOT NULL,
  work_us   bigint NOT NULL,
  end_us    bigint
);

CREATE INDEX narrowings_open ON narrowings (work_us) WHERE end_us IS NULL;

CREATE TABLE narrowing_parts (
  plan bytea   NOT NULL REFERENCES narrowings (plan),
  num  bigint NOT NULL,
  ids  bytea   NOT NULL,
  PRIMARY KEY (plan, num)
);
