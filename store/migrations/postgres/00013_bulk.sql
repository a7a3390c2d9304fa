-- Revocations of many tokens. The tokens of each are fixed when it begins, in parts; a part goes with the transaction that
-- revokes its tokens, so that whoever carries on begins where the last one stopped. ids are 8 bytes each. A program from before
-- these tables carries none of them on.

-- +goose Up

CREATE TABLE bulk_revocations (
  plan     bytea  NOT NULL PRIMARY KEY CHECK (length(plan) = 32),
  actor    text   NOT NULL,
  peer_ip  bytea,
  reason   text,
  count    bigint NOT NULL,
  revoked  bigint NOT NULL,
  begin_us bigint NOT NULL,
  work_us  bigint NOT NULL,
  end_us   bigint
);

CREATE INDEX bulk_revocations_open ON bulk_revocations (work_us) WHERE end_us IS NULL;

CREATE TABLE bulk_parts (
  plan bytea  NOT NULL REFERENCES bulk_revocations (plan),
  num  bigint NOT NULL,
  ids  bytea  NOT NULL,
  PRIMARY KEY (plan, num)
);
