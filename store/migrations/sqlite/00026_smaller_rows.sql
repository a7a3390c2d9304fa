-- From here on rows may be smaller: name_key is empty where it is the name in lower case, and checksums (row_mac and its like) may
-- have their short form. Rows from before stay as they are, and both are read. A program from before this migration takes rows with
-- short checksums for edited ones: it must be stopped before, and does not start on the file any more. One that still runs changes
-- nothing, where the rows are sealed.

-- +goose Up

DROP TRIGGER events_of_sealed;

-- +goose StatementBegin
CREATE TRIGGER events_of_sealed BEFORE INSERT ON events
WHEN coalesce(NEW.writer, 0) < 26 AND EXISTS (SELECT 1 FROM sealed)
BEGIN SELECT RAISE(ABORT, 'the rows are sealed: this patd is too old to write'); END;
-- +goose StatementEnd

UPDATE compatibility SET oldest = 26;
