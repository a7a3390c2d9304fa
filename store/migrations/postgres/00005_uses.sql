-- The last use of each token, apart from the token: uses are written by the hundred thousand, and of rows as narrow as these a
-- hundred and more lie on a page. Those from before this table stay where they were, in last_used_us and last_used_ip of tokens,
-- where earlier programs go on writing them until they are replaced; the later one counts. No reference points to tokens: a
-- use is noted of a token that was just read, and after a restore from before that token nobody reads its use.

-- +goose Up

-- A page keeps room for the next use of each row, so that no index has to be told.
CREATE TABLE uses (
  token_id bigint NOT NULL PRIMARY KEY,
  use_us   bigint NOT NULL,
  use_ip   bytea
) WITH (fillfactor = 50);
