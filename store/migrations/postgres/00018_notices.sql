-- Notices before an end, and of tokens that are not used. notices says which were written: about what (1 a token, 2 a service), for
-- which end, and how long before it (0: of the end itself). A row is written with its audit event, so that each is written once,
-- by whichever server. notice_marks says how far the indexes of ends and of issues were gone through, and which server does that.
-- idle_checks says when it is looked next whether a token is still used. unused_us is the last use (else the issue, or when a pause
-- ended) about which token.unused was written, announced_us that about which the pause was announced, and announce_us when;
-- resume_us is when the last pause ended. end_set_us is when a token's expiry was last set; NULL: at its issue or renewal. A program
-- from before this migration writes no notices. It takes the pause of a token, a line of blocked_by, for a block, and leaves it.

-- +goose Up

ALTER TABLE tokens ADD COLUMN end_set_us bigint;

CREATE INDEX services_expire ON services (expire_us, id);

CREATE TABLE notices (
  kind      bigint NOT NULL CHECK (kind IN (1, 2)),
  end_us    bigint NOT NULL,
  id        bigint NOT NULL,
  before_us bigint NOT NULL,
  PRIMARY KEY (kind, end_us, id, before_us)
);

CREATE TABLE notice_marks (
  name  text COLLATE "C" NOT NULL PRIMARY KEY,
  at_us bigint NOT NULL,
  note  text
);

CREATE TABLE idle_checks (
  token_id     bigint PRIMARY KEY,
  due_us       bigint NOT NULL,
  unused_us    bigint,
  announced_us bigint,
  announce_us  bigint,
  resume_us    bigint
);

CREATE INDEX idle_checks_due ON idle_checks (due_us, token_id);
