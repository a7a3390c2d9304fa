-- What becomes of a rotation. ended_us says when a secret stopped that was ended before its time: until_us is 0 then, so that it
-- stays ended when the clock is set back. rotate_us to blocked_before belong to the newest secret that was rotated away: what
-- was said to its caller (change and retire_on_use), when its successor was first used, and what a cancellation puts back. A row
-- of a program from before this migration has none of them, and its rotation cannot be canceled. renew_us is when a rotation
-- last gave a token its lifetime; NULL: it has that of its issue.

-- +goose Up

ALTER TABLE old_secrets ADD COLUMN ended_us bigint;
ALTER TABLE old_secrets ADD COLUMN next_use_us bigint;
ALTER TABLE old_secrets ADD COLUMN rotate_us bigint;
ALTER TABLE old_secrets ADD COLUMN retire_on_use bigint CHECK (retire_on_use IN (0, 1));
ALTER TABLE old_secrets ADD COLUMN change bigint CHECK (change IN (1, 2, 3, 4));
ALTER TABLE old_secrets ADD COLUMN expire_before_us bigint;
ALTER TABLE old_secrets ADD COLUMN expire_after_us bigint;
ALTER TABLE old_secrets ADD COLUMN renew_before_us bigint;
ALTER TABLE old_secrets ADD COLUMN dropped text;
ALTER TABLE old_secrets ADD COLUMN blocked_before text;

ALTER TABLE tokens ADD COLUMN renew_us bigint;
