// Package store keeps patd's tokens, users, services and audit log in a database: it implements tokens.Store on
// database/sql, in a file with SQLite, or in PostgreSQL where several servers share one store.
//
// # The file
//
// One file, readable by its owner only, with a write-ahead log beside it. It is marked as patd's (its application id
// is "patd"), and another program's database is refused before anything of it is changed. Open brings the schema
// up to date with the migrations in migrations/sqlite, under a lock, so that programs that start at the same moment
// on a new file do not meet half a schema. Several processes may use the file at once.
//
// Rows are designed for ten million tokens. A token is found by its id, which is the table's primary key: one statement
// reads it with its user. Two indexes serve its owner: one lists tokens newest first, and one holds the live tokens
// with expiry and name, so that limits and unique names look at nothing else. A third holds the live tokens that name
// audiences, for the dry run of a policy, and a fourth the blocked ones; a token that is neither is in none of them.
// Ids are stored as signed integers; they sort by age until the year 2089.
//
// What comes of tokens is found by its own id too. Access tokens and families have an index of the live ones by token,
// for the limits, and one by their end, by which a day later they are dropped; a family's refresh tokens go with it.
//
// # Connections
//
// One connection writes; a pool is for lookups and another for lists and audits, so that nothing slow stands before
// an introspection. The settings of a connection are part of its data source name: a PRAGMA run on a pool would
// reach one of them. synchronous=FULL: when Update returns nil, the change is on disk.
//
// # PostgreSQL
//
// The statements are the same, and so are the tables; a dialect says what little is not. Tables are in a schema of
// their own. Everybody who writes holds the lock of one table from the first statement to the end of the commit,
// whichever process it is in. That makes PostgreSQL's writers what SQLite's are: one at a time, each reading what the
// one before has left, so that limits and names hold with any number of servers; and positions in the change feed,
// given within, follow the order of commits, so that who polls for what is above a position skips nothing. What it
// costs, sharing transactions gives back.
//
// NOTIFY wakes those who follow the feed; what it misses they find by looking. A transaction that stands still for
// three seconds is ended by the server, so that a machine that vanished does not hold up writers.
//
// A commit in the middle of which the connection breaks may have happened. It is looked up by the audit event that it
// wrote, in a transaction that waits for the lock, and so for the end of the other; only when that cannot be found out
// within seconds does the change return that its outcome is unknown (OUTCOME_UNKNOWN). Connections that a restart
// has killed are replaced once without a word; a transaction that was in another's way runs once more.
//
// Servers never change the schema: Migrate does. A program works on the schemas that it knows, and on later ones whose
// minimum compatible version it is not below, so that servers of two versions can share a database while an upgrade
// goes round.
//
// # Transactions
//
// A change, its audit events and its entries in the change feed are one transaction. Waiting for it heeds the
// caller's context, and after that nothing interrupts it: it happens whole or not at all. After a failed statement a
// transaction does nothing more, because SQLite may have rolled it back by itself and what came after would stand
// alone. Some rules are held by the schema too, against any program: events are only added, a revocation is final,
// and a refresh token is used once.
//
// Changes that wait share a transaction and its flush of the disk, each within a savepoint: one that fails is undone by
// itself. One that comes alone begins at once. None returns before the commit, not even a refusal, for it may rest on
// what another has written; a commit that fails is everybody's failure. When a transaction is lost to one of them, or
// its commit breaks a rule that does not tell whose fault it is, the others run again, each in a transaction of its
// own. Housekeeping stands in a line of its own and gives way to changes, but not for ever.
//
// In PostgreSQL the changes of a group run side by side, taking turns, so that what all of them read goes through the
// network together, and so do the rows that they add (aside.go, additions.go). All read under the lock and before any
// of them has written. A change whose reads another's rows would have altered runs again after it; one that needs a
// statement of another kind, and one that is traced, runs by itself after the others.
//
// # Checksums
//
// Every row that a decision about a credential rests on carries a keyed checksum, whose keys [Store.UseRowKeys] sets.
// It is made of the row as it is in memory, and compared when the row becomes a record; see rowmac.go and
// docs/security.md. The table sealed says that every row has one. Triggers take away the checksum that an earlier
// program's change made stale.
//
// # Faults
//
// Every failure that is no error of the domain and not the context's end is a tokens.Error of CodeUnavailable, with its
// own reason when there is no room left. No method returns less because it could not read.
//
// # The change feed
//
// Every change leaves an entry in the table of changes, in its own transaction. Package feed follows that table for
// caches and watchers; [Store.Feed] is the store's.
//
// A process that serves the store is in the table of servers from before it first reads the feed ([Store.Join]), and no
// reading counts that does not find it there. So one that has made a change knows which others may not have it.
//
// # Copies
//
// [Store.Copy] moves a store between the databases, row by row in the order of the tables' keys, and reads back what it
// wrote before it counts. One list names the tables and their columns, and a test holds it against both schemas. A
// backup of SQLite is one of its pages; one of PostgreSQL is such a copy, in a file.
//
// # In the background
//
// The last uses of tokens, and digests that move to the current key, gather in package usage; [Store.Uses] is the
// store's. They are written at an interval, and by Close. A failed write is tried again. Package cache stands in front
// of a store and returns lookups from memory.
package store
