-- The inventory: tokens of all users by their issue and their expiry, and the revoked ones by age. A program from before these indexes
-- runs on.

-- +goose Up

CREATE INDEX tokens_expire ON tokens (expire_us, id);
CREATE INDEX tokens_issue ON tokens (issue_us, id);
CREATE INDEX tokens_revoked ON tokens (id) WHERE revoke_us IS NOT NULL;
