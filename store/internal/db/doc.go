// Package db is what a store needs of its databases and their drivers: connections, what SQLite and PostgreSQL differ
// in, what their failures mean, and how fields become columns. It knows no table of patd's, but for the lock of
// writers.
//
// # Connections
//
// A [Pool] lends out connections of one kind; a waiting borrower heeds its context. A [Conn] keeps its prepared
// statements and knows when the driver has given it up; [Pool.Use] then runs once more on another. The settings of a
// connection are part of its data source name ([WriterDSN], [ReaderDSN]): a PRAGMA run on a pool would reach one of
// them. In PostgreSQL they are made after connecting, for poolers refuse them before; a pooler that keeps no sessions
// is refused ([RefusePooler]).
//
// # Dialects
//
// Statements are written for SQLite. A [Dialect] rewrites them for PostgreSQL and says what else differs: how a
// transaction begins, what is announced before a commit, whether a commit's outcome can be unknown.
//
// # Faults
//
// [Fault] turns a failure into what tokens.Store promises: errors of the domain and the context's end pass, everything
// else is an outage of CodeUnavailable, with its own reason when there is no room left. No caller takes a driver's
// error apart otherwise.
package db
