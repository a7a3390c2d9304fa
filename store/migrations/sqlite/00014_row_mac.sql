-- A keyed checksum of each row that a decision rests on, over the columns that are named in its trigger. A row that has ended
-- (revoked, used, deleted) needs none. That of what a cancellation puts back is before_mac; nothing updates it. A program from before this migration knows nothing of it: a checksum that its update
-- leaves as it was is removed, and rows without one are accepted until the operator seals the rows (`patd migrate --seal-rows`),
-- which is when no such program may run any more. A store that begins with this migration is sealed from the start.

-- +goose Up

ALTER TABLE users ADD COLUMN row_mac BLOB;
ALTER TABLE tokens ADD COLUMN row_mac BLOB;
ALTER TABLE old_secrets ADD COLUMN row_mac BLOB;
ALTER TABLE old_secrets ADD COLUMN before_mac BLOB;
ALTER TABLE services ADD COLUMN row_mac BLOB;
ALTER TABLE families ADD COLUMN row_mac BLOB;
ALTER TABLE refresh_tokens ADD COLUMN row_mac BLOB;
ALTER TABLE access_tokens ADD COLUMN row_mac BLOB;

-- Which program wrote an event: the last migration that it knew. Programs from before this column leave it out.
ALTER TABLE events ADD COLUMN writer INTEGER;

-- There is no row until the rows are being sealed. From then on earlier programs write no more: none opens the store, and every
-- change of one that is still running fails with its event. finish_us is when every row had a checksum.
CREATE TABLE sealed (
  one       INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
  begin_us  INTEGER NOT NULL,
  finish_us INTEGER
) STRICT;

-- +goose StatementBegin
CREATE TRIGGER sealed_raises_oldest AFTER INSERT ON sealed
BEGIN UPDATE compatibility SET oldest = 14 WHERE oldest < 14; END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER events_of_sealed BEFORE INSERT ON events
WHEN NEW.writer IS NULL AND EXISTS (SELECT 1 FROM sealed)
BEGIN SELECT RAISE(ABORT, 'the rows are sealed: this patd is too old to write'); END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER users_row_mac AFTER UPDATE OF
  "user", state, features, create_us, delete_us
ON users WHEN NEW.row_mac IS NOT NULL AND NEW.row_mac IS OLD.row_mac AND (
  NEW."user" IS NOT OLD."user" OR NEW.state IS NOT OLD.state OR NEW.features IS NOT OLD.features OR
  NEW.create_us IS NOT OLD.create_us OR NEW.delete_us IS NOT OLD.delete_us)
BEGIN UPDATE users SET row_mac = NULL WHERE key = NEW.key; END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER tokens_row_mac AFTER UPDATE OF
  "user", key, digest, rotations, name, scopes, issue_us, expire_us, audiences, cidrs, labels, blocked_by, revoke_us
ON tokens WHEN NEW.row_mac IS NOT NULL AND NEW.row_mac IS OLD.row_mac AND (
  NEW."user" IS NOT OLD."user" OR NEW.key IS NOT OLD.key OR NEW.digest IS NOT OLD.digest OR
  NEW.rotations IS NOT OLD.rotations OR NEW.name IS NOT OLD.name OR NEW.scopes IS NOT OLD.scopes OR
  NEW.issue_us IS NOT OLD.issue_us OR NEW.expire_us IS NOT OLD.expire_us OR NEW.audiences IS NOT OLD.audiences OR
  NEW.cidrs IS NOT OLD.cidrs OR NEW.labels IS NOT OLD.labels OR NEW.blocked_by IS NOT OLD.blocked_by OR
  NEW.revoke_us IS NOT OLD.revoke_us)
BEGIN UPDATE tokens SET row_mac = NULL WHERE id = NEW.id; END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER old_secrets_row_mac AFTER UPDATE OF
  token_id, serial, key, digest, until_us
ON old_secrets WHEN NEW.row_mac IS NOT NULL AND NEW.row_mac IS OLD.row_mac AND (
  NEW.token_id IS NOT OLD.token_id OR NEW.serial IS NOT OLD.serial OR NEW.key IS NOT OLD.key OR
  NEW.digest IS NOT OLD.digest OR NEW.until_us IS NOT OLD.until_us)
BEGIN UPDATE old_secrets SET row_mac = NULL WHERE token_id = NEW.token_id AND serial = NEW.serial; END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER services_row_mac AFTER UPDATE OF
  name, permissions, audience, key, digest, issue_us, expire_us, revoke_us, rotations, old_key, old_digest, old_until_us
ON services WHEN NEW.row_mac IS NOT NULL AND NEW.row_mac IS OLD.row_mac AND (
  NEW.name IS NOT OLD.name OR NEW.permissions IS NOT OLD.permissions OR NEW.audience IS NOT OLD.audience OR
  NEW.key IS NOT OLD.key OR NEW.digest IS NOT OLD.digest OR NEW.issue_us IS NOT OLD.issue_us OR
  NEW.expire_us IS NOT OLD.expire_us OR NEW.revoke_us IS NOT OLD.revoke_us OR
  NEW.rotations IS NOT OLD.rotations OR NEW.old_key IS NOT OLD.old_key OR
  NEW.old_digest IS NOT OLD.old_digest OR NEW.old_until_us IS NOT OLD.old_until_us)
BEGIN UPDATE services SET row_mac = NULL WHERE id = NEW.id; END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER families_row_mac AFTER UPDATE OF
  token_id, serial, client_id, authenticated, scopes, audiences, issue_us, expire_us, revoke_us
ON families WHEN NEW.row_mac IS NOT NULL AND NEW.row_mac IS OLD.row_mac AND (
  NEW.token_id IS NOT OLD.token_id OR NEW.serial IS NOT OLD.serial OR NEW.client_id IS NOT OLD.client_id OR
  NEW.authenticated IS NOT OLD.authenticated OR NEW.scopes IS NOT OLD.scopes OR NEW.audiences IS NOT OLD.audiences OR
  NEW.issue_us IS NOT OLD.issue_us OR NEW.expire_us IS NOT OLD.expire_us OR NEW.revoke_us IS NOT OLD.revoke_us)
BEGIN UPDATE families SET row_mac = NULL WHERE id = NEW.id; END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER refresh_tokens_row_mac AFTER UPDATE OF
  family, key, digest, issue_us, use_us
ON refresh_tokens WHEN NEW.row_mac IS NOT NULL AND NEW.row_mac IS OLD.row_mac AND (
  NEW.family IS NOT OLD.family OR NEW.key IS NOT OLD.key OR NEW.digest IS NOT OLD.digest OR
  NEW.issue_us IS NOT OLD.issue_us OR NEW.use_us IS NOT OLD.use_us)
BEGIN UPDATE refresh_tokens SET row_mac = NULL WHERE id = NEW.id; END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER access_tokens_row_mac AFTER UPDATE OF
  token_id, serial, family, key, digest, scopes, audiences, client_id, issue_us, expire_us, revoke_us
ON access_tokens WHEN NEW.row_mac IS NOT NULL AND NEW.row_mac IS OLD.row_mac AND (
  NEW.token_id IS NOT OLD.token_id OR NEW.serial IS NOT OLD.serial OR NEW.family IS NOT OLD.family OR
  NEW.key IS NOT OLD.key OR NEW.digest IS NOT OLD.digest OR NEW.scopes IS NOT OLD.scopes OR
  NEW.audiences IS NOT OLD.audiences OR NEW.client_id IS NOT OLD.client_id OR NEW.issue_us IS NOT OLD.issue_us OR
  NEW.expire_us IS NOT OLD.expire_us OR NEW.revoke_us IS NOT OLD.revoke_us)
BEGIN UPDATE access_tokens SET row_mac = NULL WHERE id = NEW.id; END;
-- +goose StatementEnd
