-- Keyed checksums, as of 00014, of two more tables: a message goes where a webhook's row says, and what an identity provider says of
-- a user is done to the user that its row names. Rows that are there get theirs from the next program that opens the store with its
-- keys, if the others are sealed: later_us is when. A program from before this migration goes on working: a checksum that its update
-- leaves as it was is removed, and the row is then refused where the rows are sealed, until `patd migrate --seal-rows`.

-- +goose Up

ALTER TABLE webhooks ADD COLUMN row_mac bytea;
ALTER TABLE provisioned_users ADD COLUMN row_mac bytea;
ALTER TABLE sealed ADD COLUMN later_us bigint;

CREATE TRIGGER webhooks_row_mac BEFORE UPDATE OF
  num, id, url, event_types, users, audiences, labels, enabled
ON webhooks FOR EACH ROW WHEN (NEW.row_mac IS NOT NULL AND NEW.row_mac IS NOT DISTINCT FROM OLD.row_mac AND (
  NEW.num IS DISTINCT FROM OLD.num OR NEW.id IS DISTINCT FROM OLD.id OR NEW.url IS DISTINCT FROM OLD.url OR
  NEW.event_types IS DISTINCT FROM OLD.event_types OR NEW.users IS DISTINCT FROM OLD.users OR
  NEW.audiences IS DISTINCT FROM OLD.audiences OR NEW.labels IS DISTINCT FROM OLD.labels OR
  NEW.enabled IS DISTINCT FROM OLD.enabled))
EXECUTE FUNCTION patd_row_mac_is_stale();

CREATE TRIGGER provisioned_users_row_mac BEFORE UPDATE OF
  user_key, id, user_name, external_id, inactive
ON provisioned_users FOR EACH ROW WHEN (NEW.row_mac IS NOT NULL AND NEW.row_mac IS NOT DISTINCT FROM OLD.row_mac AND (
  NEW.user_key IS DISTINCT FROM OLD.user_key OR NEW.id IS DISTINCT FROM OLD.id OR
  NEW.user_name IS DISTINCT FROM OLD.user_name OR NEW.external_id IS DISTINCT FROM OLD.external_id OR
  NEW.inactive IS DISTINCT FROM OLD.inactive))
EXECUTE FUNCTION patd_row_mac_is_stale();
