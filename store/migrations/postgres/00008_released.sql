-- Up to which position the audit log has been released for deletion, and before which moment those events were. There is no row
-- until the log is shortened for the first time, and never more than one. Everything above stays append-only. A program from
-- before this table runs on; its `patd check` reports records whose events are gone.

-- +goose Up

CREATE TABLE released (
  one       bigint NOT NULL PRIMARY KEY CHECK (one = 1),
  seq       bigint NOT NULL,
  before_us bigint NOT NULL
);

-- +goose StatementBegin
CREATE FUNCTION patd_log_keeps_its_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.seq > (SELECT coalesce(max(seq), 0) FROM released) THEN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN OLD;
END $$;
-- +goose StatementEnd

DROP TRIGGER events_no_delete ON events;
CREATE TRIGGER events_no_delete BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION patd_log_keeps_its_events();

-- +goose StatementBegin
CREATE FUNCTION patd_released_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND NEW.seq >= OLD.seq AND NEW.before_us >= OLD.before_us THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'what was released stays released' USING ERRCODE = 'integrity_constraint_violation';
END $$;
-- +goose StatementEnd

CREATE TRIGGER released_grows BEFORE UPDATE ON released FOR EACH ROW EXECUTE FUNCTION patd_released_stays();
CREATE TRIGGER released_stays BEFORE DELETE ON released FOR EACH ROW EXECUTE FUNCTION patd_released_stays();
