-- Webhooks, and what is to be sent to them. The audit log is the outbox: cursor_seq is the position in it up to which deliveries
-- were made for a webhook. One server delivers for a webhook at a time, who holds its lease: lease_num counts the holders, so that
-- a server which lost the lease writes nothing more. secret and old_secret, which signs along until old_until_us, are sealed under a
-- key derived from the digest key that stands beside them; that key is not retired before they are sealed anew.
--
-- A delivery is of one event, and of an item of it where an event is several notices; that of a test is of no event and has an item
-- of 2^32 and more. Deliveries with one subject, such as a token, go in order: next_us is when the first of those that are pending is
-- tried next, and NULL for those behind it. state: 1 pending, 2 delivered, 3 given up. since_us is the first attempt, from which
-- on it is tried again for some days. A program from before this migration delivers nothing.

-- +goose Up

CREATE TABLE webhooks (
  num            INTEGER NOT NULL PRIMARY KEY,
  id             TEXT    NOT NULL UNIQUE,
  url            TEXT    NOT NULL,
  description    TEXT,
  event_types    TEXT,
  users          TEXT,
  audiences      TEXT,
  labels         TEXT,
  enabled        INTEGER NOT NULL CHECK (enabled IN (0, 1)),
  disable_us     INTEGER,
  disable_reason TEXT,
  create_us      INTEGER NOT NULL,
  update_us      INTEGER NOT NULL,
  secret_key     INTEGER NOT NULL REFERENCES keys (num),
  secret         BLOB    NOT NULL,
  old_secret_key INTEGER REFERENCES keys (num),
  old_secret     BLOB,
  old_until_us   INTEGER,
  cursor_seq     INTEGER NOT NULL,
  lease_holder   TEXT,
  lease_us       INTEGER,
  lease_num      INTEGER NOT NULL DEFAULT 0,
  CHECK ((old_secret IS NULL) = (old_secret_key IS NULL))
) STRICT;

-- No reference points to webhooks: when one is deleted, its deliveries are dropped later, a bounded number at a time.
CREATE TABLE webhook_deliveries (
  webhook     INTEGER NOT NULL,
  seq         INTEGER NOT NULL,
  item        INTEGER NOT NULL,
  id          BLOB    NOT NULL CHECK (length(id) = 16),
  type        TEXT    NOT NULL,
  subject     TEXT    NOT NULL,
  data        TEXT,
  state       INTEGER NOT NULL CHECK (state IN (1, 2, 3)),
  create_us   INTEGER NOT NULL,
  since_us    INTEGER,
  next_us     INTEGER,
  end_us      INTEGER,
  attempts    INTEGER NOT NULL DEFAULT 0,
  attempt_us  INTEGER,
  duration_us INTEGER,
  status      INTEGER,
  error       TEXT,
  PRIMARY KEY (webhook, seq, item),
  CHECK ((end_us IS NULL) = (state = 1))
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX webhook_deliveries_id ON webhook_deliveries (webhook, id);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook, next_us, seq, item) WHERE next_us IS NOT NULL;
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (webhook, subject, seq, item) WHERE state = 1;
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (state, end_us) WHERE end_us IS NOT NULL;

-- An earlier program knows nothing of sealed secrets, and would retire the key that they need.
-- +goose StatementBegin
CREATE TRIGGER keys_seal_webhooks BEFORE UPDATE OF retire_us ON keys
WHEN NEW.retire_us IS NOT NULL AND EXISTS (SELECT 1 FROM webhooks
  WHERE secret_key = NEW.num OR old_secret_key = NEW.num AND old_until_us > NEW.retire_us)
BEGIN SELECT RAISE(ABORT, 'secrets of webhooks are sealed under the key'); END;
-- +goose StatementEnd
