-- One index by user instead of two, and none by issue: an id begins with the millisecond of its issue. The tokens of a user that are
-- not revoked are in the order of their expiry, and those that are revoked, with 0 for it, in that of their ids; names are in the
-- rows alone. The pages of the old indexes are used again. A program from before this migration names them in its statements: it
-- must be stopped before, and does not start on the file any more.

-- +goose Up

DROP INDEX tokens_issue;
DROP INDEX tokens_live;
DROP INDEX tokens_user;
CREATE INDEX tokens_user ON tokens (user, CASE WHEN revoke_us IS NULL THEN expire_us ELSE 0 END);

UPDATE compatibility SET oldest = 25;
