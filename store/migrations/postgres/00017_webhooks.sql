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
  num            bigint NOT NULL PRIMARY KEY,
  id             text    COLLATE "C" NOT NULL UNIQUE,
  url            text    NOT NULL,
  description    text,
  event_types    text,
  users          text,
  audiences      text,
  labels         text,
  enabled        bigint NOT NULL CHECK (enabled IN (0, 1)),
  disable_us     bigint,
  disable_reason text,
  create_us      bigint NOT NULL,
  update_us      bigint NOT NULL,
  secret_key     bigint NOT NULL REFERENCES keys (num),
  secret         bytea   NOT NULL,
  old_secret_key bigint REFERENCES keys (num),
  old_secret     bytea,
  old_until_us   bigint,
  cursor_seq     bigint NOT NULL,
  lease_holder   text,
  lease_us       bigint,
  lease_num      bigint NOT NULL DEFAULT 0,
  CHECK ((old_secret IS NULL) = (old_secret_key IS NULL))
);

-- No reference points to webhooks: when one is deleted, its deliveries are dropped later, a bounded number at a time.
CREATE TABLE webhook_deliveries (
  webhook     bigint NOT NULL,
  seq         bigint NOT NULL,
  item        bigint NOT NULL,
  id          bytea   NOT NULL CHECK (length(id) = 16),
  type        text    NOT NULL,
  subject     text    COLLATE "C" NOT NULL,
  data        text,
  state       bigint NOT NULL CHECK (state IN (1, 2, 3)),
  create_us   bigint NOT NULL,
  since_us    bigint,
  next_us     bigint,
  end_us      bigint,
  attempts    bigint NOT NULL DEFAULT 0,
  attempt_us  bigint,
  duration_us bigint,
  status      bigint,
  error       text,
  PRIMARY KEY (webhook, seq, item),
  CHECK ((end_us IS NULL) = (state = 1))
);

CREATE UNIQUE INDEX webhook_deliveries_id ON webhook_deliveries (webhook, id);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook, next_us, seq, item) WHERE next_us IS NOT NULL;
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (webhook, subject, seq, item) WHERE state = 1;
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (state, end_us) WHERE end_us IS NOT NULL;

-- An earlier program knows nothing of sealed secrets, and would retire the key that they need.
-- +goose StatementBegin
CREATE FUNCTION patd_key_seals_webhooks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM webhooks
    WHERE secret_key = NEW.num OR old_secret_key = NEW.num AND old_until_us > NEW.retire_us) THEN
    RAISE EXCEPTION 'secrets of webhooks are sealed under the key' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
-- +goose StatementEnd

CREATE TRIGGER keys_seal_webhooks BEFORE UPDATE OF retire_us ON keys FOR EACH ROW
WHEN (NEW.retire_us IS NOT NULL) EXECUTE FUNCTION patd_key_seals_webhooks();
