// Package feed follows the change feed of a store: the table in which every change leaves an entry that names what
// changed. Caches drop records by it, and watchers are sent it.
//
// # Reading
//
// [Feed.Follow] reads the table to its end when this process has committed ([Feed.Advance]), when another says that it
// has ([Feed.NudgeFromOutside]), and every 100 ms in any case: the table is the truth, a signal only wakes. One reader
// at a time has the turn; [Feed.CatchUp] waits for it a second at most.
//
// Each reading begins with the entry at the position of the last one. If that is another, or gone, the database has
// another history, as after a restore: every listener drops all it has, and every position of a watcher is lost.
//
// # Two kinds of readers
//
// A [Listener], such as a cache, is given entries before they count as received, so that the sequence that lookups name
// ([Feed.Sequence]) is never ahead of what listeners have dropped. A watcher waits for [Feed.News] and asks for what is
// [Feed.After] its position; the newest entries are in a ring in memory, so that watchers cost the database nothing.
//
// # Trust
//
// [Feed.Live] reports whether memory counts. It does not when the table was not read to its end for 5 s, nor for 30 s
// after the feed was found to be incomplete: its newest position went back, or it stood still while the audit log grew.
// Live is on the way of every lookup: it takes no lock.
package feed
