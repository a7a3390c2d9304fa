-- Which programs suffer this schema: those that know at least this migration. A later migration that only adds what an
-- earlier program can do without leaves the number as it is, so that both run on one database while an upgrade goes round; one that
-- takes something away raises it.

-- +goose Up

CREATE TABLE compatibility (
  oldest bigint NOT NULL
);

INSERT INTO compatibility (oldest) VALUES (4);

-- How often callers did what is limited for all servers together: when each has its whole burst again. PostgreSQL alone has
-- this: a file has one server, which counts by itself. After a crash nothing counts.
CREATE UNLOGGED TABLE rates (
  name    text   COLLATE "C" NOT NULL PRIMARY KEY,
  full_us bigint NOT NULL
);

-- Who writes holds the lock of this table, which never has a row, to the end of the transaction. PostgreSQL alone has this, too.
CREATE TABLE writers ();
