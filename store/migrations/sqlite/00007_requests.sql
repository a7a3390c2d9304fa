-- Idempotent requests make services too, whose ids are in a table of their own: token_id is then the id of the service's token
-- and refers to no row of tokens. A program from before this migration goes on as it did. The rows, which live for a day, are
-- copied, since SQLite drops no constraint.

-- +goose Up

CREATE TABLE requests_of_all (
  key         BLOB    NOT NULL PRIMARY KEY CHECK (length(key) = 32),
  fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),
  token_id    INTEGER NOT NULL,
  sealed      BLOB,
  expire_us   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO requests_of_all (key, fingerprint, token_id, sealed, expire_us)
SELECT key, fingerprint, token_id, sealed, expire_us FROM requests;

DROP TABLE requests;

ALTER TABLE requests_of_all RENAME TO requests;

CREATE INDEX requests_sealed ON requests (token_id) WHERE sealed IS NOT NULL;
CREATE INDEX requests_expire ON requests (expire_us);
