// Package cache serves lookups from memory, within a bound, in front of a store. [Cache] implements tokens.Store.
//
// # What is kept
//
// A token is a record without pointers in a log of segments (internal/reclog), found by an index of eight bytes an
// entry; the oldest segment goes when there is no room, except what was read since. A user is one record that all of
// its tokens share. Access tokens, which live shortly, and services, of which there are few, are kept as they are.
// Unknown ids take no memory: they are looked up in the store each time.
//
// # When it counts
//
// Before a change by this process returns, the records that it names are dropped; changes by others are dropped when
// the change feed brings them ([patd/store/feed]). A reading of the store that was under way meanwhile is returned to
// those who had asked before, and not kept. While the feed is not live every lookup reads the store.
//
// A token and its user are two records that are read without a lock. A version, odd while changes are being applied, is
// compared before and after, so that both are of one instant.
//
// # Uses
//
// The last use of a token that is in memory is kept in its record until the store writes it ([patd/store/usage]). A
// record that leaves hands its use on first.
package cache
