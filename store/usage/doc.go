// Package usage gathers what is written to a store in the background: the last use of each token, and digests that move
// to the current key. It is bounded, and counts what it drops.
//
// Every introspection records a use, so that uses of different tokens should not wait for one another: a [Buffer] is in
// shards. A cache, which has the tokens in memory anyway, keeps their uses itself, as a [Keeper] that the buffer knows.
//
// Digests are written soon. A few uses are written at the next interval, many when they were gathered for eight of them
// or there is little room left (see [Buffer.Due]), and in the order of ids ([Buffer.FlushUses]): what a use costs is
// mostly the page that it is on, which others then share. How they are written is the store's part.
package usage
