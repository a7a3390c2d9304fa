-- A service's token is rotated under its name: the secret before the last rotation is accepted until old_until_us.
-- rotations counts the secrets that were rotated away, and rotate_us is when the last one was. A program from before
-- these columns accepts the current secret only, and rotates none.

-- +goose Up

ALTER TABLE services ADD COLUMN rotations bigint NOT NULL DEFAULT 0;
ALTER TABLE services ADD COLUMN rotate_us bigint;
ALTER TABLE services ADD COLUMN old_key bigint REFERENCES keys (num);
ALTER TABLE services ADD COLUMN old_digest bytea CHECK (length(old_digest) = 32);
ALTER TABLE services ADD COLUMN old_until_us bigint;
