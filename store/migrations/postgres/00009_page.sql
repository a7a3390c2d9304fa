-- Who is signed in to the page, and the codes by which a company's own product hands a user over. Both are found by a keyed
-- digest of 256 random bits, which the browser alone has. A session that has ended is kept for a day, since a form that was
-- typed into it may still be sent. A program from before these tables has no page.

-- +goose Up

CREATE TABLE page_sessions (
  digest      bytea  NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
  id          bigint NOT NULL,
  "user"      text   NOT NULL,
  service     text,
  return_url  text,
  permissions text,
  features    text,
  issue_us    bigint NOT NULL,
  seen_us     bigint NOT NULL,
  expire_us   bigint NOT NULL,
  end_us      bigint,
  peer_ip     bytea,
  agent       text,
  hint        bytea,
  draft       bytea
);

CREATE INDEX page_sessions_user ON page_sessions ("user", id) WHERE end_us IS NULL;
CREATE INDEX page_sessions_expire ON page_sessions (expire_us);

-- +goose StatementBegin
CREATE FUNCTION patd_session_stays_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'a session that has ended stays so' USING ERRCODE = 'integrity_constraint_violation'; END $$;
-- +goose StatementEnd

CREATE TRIGGER page_sessions_stay_ended BEFORE UPDATE OF end_us ON page_sessions FOR EACH ROW
WHEN (OLD.end_us IS NOT NULL AND NEW.end_us IS DISTINCT FROM OLD.end_us) EXECUTE FUNCTION patd_session_stays_ended();

CREATE TABLE page_handoffs (
  digest     bytea  NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
  "user"     text   NOT NULL,
  service    text   NOT NULL,
  return_url text,
  expire_us  bigint NOT NULL,
  session_us bigint NOT NULL,
  use_us     bigint
);

CREATE INDEX page_handoffs_expire ON page_handoffs (expire_us);

-- +goose StatementBegin
CREATE FUNCTION patd_handoff_is_used_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'a hand-off is used once' USING ERRCODE = 'integrity_constraint_violation'; END $$;
-- +goose StatementEnd

CREATE TRIGGER page_handoffs_stay_used BEFORE UPDATE OF use_us ON page_handoffs FOR EACH ROW
WHEN (OLD.use_us IS NOT NULL AND NEW.use_us IS DISTINCT FROM OLD.use_us) EXECUTE FUNCTION patd_handoff_is_used_once();
