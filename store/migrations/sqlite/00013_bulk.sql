-- Revocations of many tokens. The tokens of each are fixed when it begins, in parts; a part goes with the transaction that
-- revokes its tokens, so that whoever carries on begins where the last one stopped. ids are 8 bytes each. A program from before
-- these tables carries none of them on.

-- +goose Up

CREATE TABLE bulk_revocations (
  plan     BLOB    NOT NULL PRIMARY KEY CHECK (length(plan) = 32),
  actor    TEXT    NOT NULL,
  peer_ip  BLOB,
  reason   TEXT,
  count    INTEGER NOT NULL,
  revoked  INTEGER NOT NULL,
  begin_us INTEGER NOT NULL,
  work_us  INTEGER NOT NULL,
  end_us   INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX bulk_revocations_open ON bulk_revocations (work_us) WHERE end_us IS NULL;

CREATE TABLE bulk_parts (
  plan BLOB    NOT NULL REFERENCES bulk_revocations (plan),
  num  INTEGER NOT NULL,
  ids  BLOB    NOT NULL,
  PRIMARY KEY (plan, num)
) STRICT, WITHOUT ROWID;
