-- A keyed checksum of each row that a decision rests on, over the columns that are named in its trigger. A row that has ended
-- (revoked, used, deleted) needs none. That of what a cancellation puts back is before_mac; nothing updates it. A program from before this migration knows nothing of it: a checksum that its update
-- leaves as it was is removed, and rows without one are accepted until the operator seals the rows (`patd migrate --seal-rows`),
-- which is when no such program may run any more. A store that begins with this migration is sealed from the start.

-- +goose Up

ALTER TABLE users ADD COLUMN row_mac bytea;
ALTER TABLE tokens ADD COLUMN row_mac bytea;
ALTER TABLE old_secrets ADD COLUMN row_mac bytea;
ALTER TABLE old_secrets ADD COLUMN before_mac bytea;
ALTER TABLE services ADD COLUMN row_mac bytea;
ALTER TABLE families ADD COLUMN row_mac bytea;
ALTER TABLE refresh_tokens ADD COLUMN row_mac bytea;
ALTER TABLE access_tokens ADD COLUMN row_mac bytea;

-- Which program wrote an event: the last migration that it knew. Programs from before this column leave it out.
ALTER TABLE events ADD COLUMN writer bigint;

-- There is no row until the rows are being sealed. From then on earlier programs write no more: none opens the store, and every
-- change of one that is still running fails with its event. finish_us is when every row had a checksum.
CREATE TABLE sealed (
  one       bigint NOT NULL PRIMARY KEY CHECK (one = 1),
  begin_us  bigint NOT NULL,
  finish_us bigint
);

-- +goose StatementBegin
CREATE FUNCTION patd_sealed_raises_oldest() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE compatibility SET oldest = 14 WHERE oldest < 14;
  RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER sealed_raises_oldest AFTER INSERT ON sealed FOR EACH ROW EXECUTE FUNCTION patd_sealed_raises_oldest();

-- +goose StatementBegin
CREATE FUNCTION patd_writer_is_too_old() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM sealed) THEN
    RAISE EXCEPTION 'the rows are sealed: this patd is too old to write' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
-- +goose StatementEnd

CREATE TRIGGER events_of_sealed BEFORE INSERT ON events FOR EACH ROW
WHEN (NEW.writer IS NULL) EXECUTE FUNCTION patd_writer_is_too_old();

-- +goose StatementBegin
CREATE FUNCTION patd_row_mac_is_stale() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.row_mac := NULL;
  RETURN NEW;
END $$;
-- +goose StatementEnd

CREATE TRIGGER users_row_mac BEFORE UPDATE OF
  "user", state, features, create_us, delete_us
ON users FOR EACH ROW WHEN (NEW.row_mac IS NOT NULL AND NEW.row_mac IS NOT DISTINCT FROM OLD.row_mac AND (
  NEW."user" IS DISTINCT FROM OLD."user" OR NEW.state IS DISTINCT FROM OLD.state OR
  NEW.features IS DISTINCT FROM OLD.features OR NEW.create_us IS DISTINCT FROM OLD.create_us OR
  NEW.delete_us IS DISTINCT FROM OLD.delete_us))
EXECUTE FUNCTION patd_row_mac_is_stale();

CREATE TRIGGER tokens_row_mac BEFORE UPDATE OF
  "user", key, digest, rotations, name, scopes, issue_us, expire_us, audiences, cidrs, labels, blocked_by, revoke_us
ON tokens FOR EACH ROW WHEN (NEW.row_mac IS NOT NULL AND NEW.row_mac IS NOT DISTINCT FROM OLD.row_mac AND (
  NEW."user" IS DISTINCT FROM OLD."user" OR NEW.key IS DISTINCT FROM OLD.key OR
  NEW.digest IS DISTINCT FROM OLD.digest OR NEW.rotations IS DISTINCT FROM OLD.rotations OR
  NEW.name IS DISTINCT FROM OLD.name OR NEW.scopes IS DISTINCT FROM OLD.scopes OR
  NEW.issue_us IS DISTINCT FROM OLD.issue_us OR NEW.expire_us IS DISTINCT FROM OLD.expire_us OR
  NEW.audiences IS DISTINCT FROM OLD.audiences OR NEW.cidrs IS DISTINCT FROM OLD.cidrs OR
  NEW.labels IS DISTINCT FROM OLD.labels OR NEW.blocked_by IS DISTINCT FROM OLD.blocked_by OR
  NEW.revoke_us IS DISTINCT FROM OLD.revoke_us))
EXECUTE FUNCTION patd_row_mac_is_stale();

CREATE TRIGGER old_secrets_row_mac BEFORE UPDATE OF
  token_id, serial, key, digest, until_us
ON old_secrets FOR EACH ROW WHEN (NEW.row_mac IS NOT NULL AND NEW.row_mac IS NOT DISTINCT FROM OLD.row_mac AND (
  NEW.token_id IS DISTINCT FROM OLD.token_id OR NEW.serial IS DISTINCT FROM OLD.serial OR
  NEW.key IS DISTINCT FROM OLD.key OR NEW.digest IS DISTINCT FROM OLD.digest OR
  NEW.until_us IS DISTINCT FROM OLD.until_us))
EXECUTE FUNCTION patd_row_mac_is_stale();

CREATE TRIGGER services_row_mac BEFORE UPDATE OF
  name, permissions, audience, key, digest, issue_us, expire_us, revoke_us, rotations, old_key, old_digest, old_until_us
ON services FOR EACH ROW WHEN (NEW.row_mac IS NOT NULL AND NEW.row_mac IS NOT DISTINCT FROM OLD.row_mac AND (
  NEW.name IS DISTINCT FROM OLD.name OR NEW.permissions IS DISTINCT FROM OLD.permissions OR
  NEW.audience IS DISTINCT FROM OLD.audience OR NEW.key IS DISTINCT FROM OLD.key OR
  NEW.digest IS DISTINCT FROM OLD.digest OR NEW.issue_us IS DISTINCT FROM OLD.issue_us OR
  NEW.expire_us IS DISTINCT FROM OLD.expire_us OR NEW.revoke_us IS DISTINCT FROM OLD.revoke_us OR
  NEW.rotations IS DISTINCT FROM OLD.rotations OR NEW.old_key IS DISTINCT FROM OLD.old_key OR
  NEW.old_digest IS DISTINCT FROM OLD.old_digest OR NEW.old_until_us IS DISTINCT FROM OLD.old_until_us))
EXECUTE FUNCTION patd_row_mac_is_stale();

CREATE TRIGGER families_row_mac BEFORE UPDATE OF
  token_id, serial, client_id, authenticated, scopes, audiences, issue_us, expire_us, revoke_us
ON families FOR EACH ROW WHEN (NEW.row_mac IS NOT NULL AND NEW.row_mac IS NOT DISTINCT FROM OLD.row_mac AND (
  NEW.token_id IS DISTINCT FROM OLD.token_id OR NEW.serial IS DISTINCT FROM OLD.serial OR
  NEW.client_id IS DISTINCT FROM OLD.client_id OR NEW.authenticated IS DISTINCT FROM OLD.authenticated OR
  NEW.scopes IS DISTINCT FROM OLD.scopes OR NEW.audiences IS DISTINCT FROM OLD.audiences OR
  NEW.issue_us IS DISTINCT FROM OLD.issue_us OR NEW.expire_us IS DISTINCT FROM OLD.expire_us OR
  NEW.revoke_us IS DISTINCT FROM OLD.revoke_us))
EXECUTE FUNCTION patd_row_mac_is_stale();

CREATE TRIGGER refresh_tokens_row_mac BEFORE UPDATE OF
  family, key, digest, issue_us, use_us
ON refresh_tokens FOR EACH ROW WHEN (NEW.row_mac IS NOT NULL AND NEW.row_mac IS NOT DISTINCT FROM OLD.row_mac AND (
  NEW.family IS DISTINCT FROM OLD.family OR NEW.key IS DISTINCT FROM OLD.key OR
  NEW.digest IS DISTINCT FROM OLD.digest OR NEW.issue_us IS DISTINCT FROM OLD.issue_us OR
  NEW.use_us IS DISTINCT FROM OLD.use_us))
EXECUTE FUNCTION patd_row_mac_is_stale();

CREATE TRIGGER access_tokens_row_mac BEFORE UPDATE OF
  token_id, serial, family, key, digest, scopes, audiences, client_id, issue_us, expire_us, revoke_us
ON access_tokens FOR EACH ROW WHEN (NEW.row_mac IS NOT NULL AND NEW.row_mac IS NOT DISTINCT FROM OLD.row_mac AND (
  NEW.token_id IS DISTINCT FROM OLD.token_id OR NEW.serial IS DISTINCT FROM OLD.serial OR
  NEW.family IS DISTINCT FROM OLD.family OR NEW.key IS DISTINCT FROM OLD.key OR
  NEW.digest IS DISTINCT FROM OLD.digest OR NEW.scopes IS DISTINCT FROM OLD.scopes OR
  NEW.audiences IS DISTINCT FROM OLD.audiences OR NEW.client_id IS DISTINCT FROM OLD.client_id OR
  NEW.issue_us IS DISTINCT FROM OLD.issue_us OR NEW.expire_us IS DISTINCT FROM OLD.expire_us OR
  NEW.revoke_us IS DISTINCT FROM OLD.revoke_us))
EXECUTE FUNCTION patd_row_mac_is_stale();
