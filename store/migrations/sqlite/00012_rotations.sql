-- What becomes of a rotation. ended_us says when a secret stopped that was ended before its time: until_us is 0 then, so that it
-- stays ended when the clock is set back. rotate_us to blocked_before belong to the newest secret that was rotated away: what
-- was said to its caller (change and retire_on_use), when its successor was first used, and what a cancellation puts back. A row
-- of a program from before this migration has none of them, and its rotation cannot be canceled. renew_us is when a rotation
-- last gave a token its lifetime; NULL: it has that of its issue.

-- +goose Up

ALTER TABLE old_secrets ADD COLUMN ended_us INTEGER;
ALTER TABLE old_secrets ADD COLUMN next_use_us INTEGER;
ALTER TABLE old_secrets ADD COLUMN rotate_us INTEGER;
ALTER TABLE old_secrets ADD COLUMN retire_on_use INTEGER CHECK (retire_on_use IN (0, 1));
ALTER TABLE old_secrets ADD COLUMN change INTEGER CHECK (change IN (1, 2, 3, 4));
ALTER TABLE old_secrets ADD COLUMN expire_before_us INTEGER;
ALTER TABLE old_secrets ADD COLUMN expire_after_us INTEGER;
ALTER TABLE old_secrets ADD COLUMN renew_before_us INTEGER;
ALTER TABLE old_secrets ADD COLUMN dropped TEXT;
ALTER TABLE old_secrets ADD COLUMN blocked_before TEXT;

ALTER TABLE tokens ADD COLUMN renew_us INTEGER;
