-- Who is signed in to the page, and the codes by which a company's own product hands a user over. Both are found by a keyed
-- digest of 256 random bits, which the browser alone has. A session that has ended is kept for a day, since a form that was
-- typed into it may still be sent. A program from before these tables has no page.

-- +goose Up

CREATE TABLE page_sessions (
  digest      BLOB    NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
  id          INTEGER NOT NULL,
  user        TEXT    NOT NULL,
  service     TEXT,
  return_url  TEXT,
  permissions TEXT,
  features    TEXT,
  issue_us    INTEGER NOT NULL,
  seen_us     INTEGER NOT NULL,
  expire_us   INTEGER NOT NULL,
  end_us      INTEGER,
  peer_ip     BLOB,
  agent       TEXT,
  hint        BLOB,
  draft       BLOB
) STRICT, WITHOUT ROWID;

CREATE INDEX page_sessions_user ON page_sessions (user, id) WHERE end_us IS NULL;
CREATE INDEX page_sessions_expire ON page_sessions (expire_us);

-- +goose StatementBegin
CREATE TRIGGER page_sessions_stay_ended BEFORE UPDATE OF end_us ON page_sessions
WHEN OLD.end_us IS NOT NULL AND NEW.end_us IS NOT OLD.end_us
BEGIN SELECT RAISE(ABORT, 'a session that has ended stays so'); END;
-- +goose StatementEnd

CREATE TABLE page_handoffs (
  digest     BLOB    NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
  user       TEXT    NOT NULL,
  service    TEXT    NOT NULL,
  return_url TEXT,
  expire_us  INTEGER NOT NULL,
  session_us INTEGER NOT NULL,
  use_us     INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX page_handoffs_expire ON page_handoffs (expire_us);

-- +goose StatementBegin
CREATE TRIGGER page_handoffs_stay_used BEFORE UPDATE OF use_us ON page_handoffs
WHEN OLD.use_us IS NOT NULL AND NEW.use_us IS NOT OLD.use_us
BEGIN SELECT RAISE(ABORT, 'a hand-off is used once'); END;
-- +goose StatementEnd
