-- One index by user instead of two, and none by issue: an id begins with the millisecond of its issue. The tokens of a user that are
-- not revoked are in the order of their expiry, and those that are revoked, with 0 for it, in that of their ids; names are in the
-- rows alone. Tokens can be read while the index is made; changes of them wait. A program from before this migration goes on: it
-- reads more rows than before for a user's live tokens, and all of them for tokens by their issue.

-- +goose Up

CREATE INDEX tokens_of_user ON tokens ("user", (CASE WHEN revoke_us IS NULL THEN expire_us ELSE 0 END), id);
DROP INDEX tokens_issue;
DROP INDEX tokens_live;
DROP INDEX tokens_user;
ALTER INDEX tokens_of_user RENAME TO tokens_user;
