-- The servers of the store, so that a call that waits until a change is in effect everywhere knows which others there are. A server adds
-- its row before it first reads the change feed, and trusts what it has in memory only while each reading finds the row there and
-- not ended: left_us is when it left in order, gone_us when another found that it is silent. A row that has ended never goes on; a server
-- that still runs adds another. ask is the number of the server's latest request to the others, answers its latest answers to theirs, as
-- lines of an id and a number. tag is a random number that changes with the row. Times are for people. A program from before this
-- migration has no row: receipts do not come early for it on PostgreSQL, where its connection shows.

-- +goose Up

CREATE TABLE servers (
  id       text   NOT NULL PRIMARY KEY,
  name     text   NOT NULL,
  version  text   NOT NULL,
  begin_us bigint NOT NULL,
  left_us  bigint,
  gone_us  bigint,
  ask      bigint NOT NULL,
  answers  text   NOT NULL,
  tag      bigint NOT NULL
) WITH (fillfactor = 50);
