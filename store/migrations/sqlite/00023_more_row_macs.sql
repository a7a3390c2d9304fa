-- Keyed checksums, as of 00014, of two more tables: a message goes where a webhook's row says, and what an identity provider says of
-- a user is done to the user that its row names. Rows that are there get theirs from the next program that opens the store with its
-- keys, if the others are sealed: later_us is when. A program from before this migration goes on working: a checksum that its update
-- leaves as it was is removed, and the row is then refused where the rows are sealed, until `patd migrate --seal-rows`.

-- +goose Up

ALTER TABLE webhooks ADD COLUMN row_mac BLOB;
ALTER TABLE provisioned_users ADD COLUMN row_mac BLOB;
ALTER TABLE sealed ADD COLUMN later_us INTEGER;

-- +goose StatementBegin
CREATE TRIGGER webhooks_row_mac AFTER UPDATE OF
  num, id, url, event_types, users, audiences, labels, enabled
ON webhooks WHEN NEW.row_mac IS NOT NULL AND NEW.row_mac IS OLD.row_mac AND (
  NEW.num IS NOT OLD.num OR NEW.id IS NOT OLD.id OR NEW.url IS NOT OLD.url OR
  NEW.event_types IS NOT OLD.event_types OR NEW.users IS NOT OLD.users OR NEW.audiences IS NOT OLD.audiences OR
  NEW.labels IS NOT OLD.labels OR NEW.enabled IS NOT OLD.enabled)
BEGIN UPDATE webhooks SET row_mac = NULL WHERE num = NEW.num; END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER provisioned_users_row_mac AFTER UPDATE OF
  user_key, id, user_name, external_id, inactive
ON provisioned_users WHEN NEW.row_mac IS NOT NULL AND NEW.row_mac IS OLD.row_mac AND (
  NEW.user_key IS NOT OLD.user_key OR NEW.id IS NOT OLD.id OR NEW.user_name IS NOT OLD.user_name OR
  NEW.external_id IS NOT OLD.external_id OR NEW.inactive IS NOT OLD.inactive)
BEGIN UPDATE provisioned_users SET row_mac = NULL WHERE user_key = NEW.user_key; END;
-- +goose StatementEnd
