// Package store keeps patd's tokens, users, services and audit log in a database: it implements tokens.Store on
// database/sql, for now on SQLite alone.
//
// # The file
//
// One file, readable by its owner only, with a write-ahead log beside it. It is marked as patd's (its application id
// is "patd"), and another program's database is refused before anything of it is changed. Open brings the schema
// up to date with the migrations in migrations/sqlite, under a lock, so that programs that start at the same moment
// on a new file do not meet half a schema. Several processes may use the file at once.
//
// Rows are designed for ten million tokens. A token is found by its id, which is the table's primary key: one
// statement reads it with its user. Two indexes serve its owner: one lists tokens newest first, and one holds the
// live tokens with expiry and name, so that limits and unique names look at nothing else. A third holds the live tokens
// that name audiences, for the dry run of a policy, and a fourth the blocked ones; a token that is neither is in none of
// them. Ids are stored as signed integers; they sort by age until the year 2089.
//
// # Connections
//
// One connection writes; a pool is for lookups and another for lists and audits, so that nothing slow stands before
// an introspection. The settings of a connection are part of its data source name: a PRAGMA run on a pool would
// reach one of them. synchronous=FULL: what Update has answered is on disk.
//
// # Transactions
//
// A change, its audit events and its entries in the change feed are one transaction. Waiting for it heeds the
// caller's context, and after that nothing interrupts it: it happens whole or not at all. After a failed statement a
// transaction does nothing more, because SQLite may have rolled it back by itself and what came after would stand
// alone. Some rules hold in the schema too, whoever writes: events are only added, and a revocation is final.
//
// # Faults
//
// Every failure that is not an answer or the context's end is a tokens.Error of CodeUnavailable, with its own reason
// when there is no room left. No method answers less because it could not read.
//
// # Written behind
//
// What Touch notes (the last use of a token, and digests that move to the current key) gathers in a bounded buffer
// and is written at each FlushInterval, and by Close. A failed write is tried again.
package store
