// Package usage gathers what is written to a store in the background: the last use of each token, and digests that move
// to the current key. It is bounded, and counts what it drops.
//
// Every introspection records a use, so that uses of different tokens should not wait for one another: a [Buffer] is in
// shards. A cache, which has the tokens in memory anyway, keeps their uses itself, as a [Keeper] that the buffer knows.
//
// Digests are written soon. Uses are written a part at a time, in the order of ids, round after round
// ([Buffer.FlushPart]): what a use costs is mostly the page that it is on, which others of its part share, and no moment
// costs more than another. A round takes an interval if there are few, and eight if there are many. How they are written
// is the store's part.
package usage
