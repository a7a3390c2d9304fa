-- When the presentation of a secret that was rotated away was last recorded in the audit log; NULL: it was not. Servers on one
-- database so record it once an hour together.

-- +goose Up

ALTER TABLE old_secrets ADD COLUMN presented_us INTEGER;
