-- Up to which position the audit log has been released for deletion, and before which moment those events were. There is no row
-- until the log is shortened for the first time, and never more than one. Everything above stays append-only. A program from
-- before this table runs on; its `patd check` reports records whose events are gone.

-- +goose Up

CREATE TABLE released (
  one       INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
  seq       INTEGER NOT NULL,
  before_us INTEGER NOT NULL
) STRICT;

DROP TRIGGER events_no_delete;

-- +goose StatementBegin
CREATE TRIGGER events_no_delete BEFORE DELETE ON events
WHEN OLD.seq > (SELECT coalesce(max(seq), 0) FROM released)
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER released_grows BEFORE UPDATE ON released
WHEN NEW.seq < OLD.seq OR NEW.before_us < OLD.before_us
BEGIN SELECT RAISE(ABORT, 'what was released stays released'); END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER released_stays BEFORE DELETE ON released
BEGIN SELECT RAISE(ABORT, 'what was released stays released'); END;
-- +goose StatementEnd
