// Package limit bounds how often something may happen, per caller or per address, in memory that does not grow.
//
// A Limiter is a table of token buckets. Each key begins with Burst tokens and gets Rate back per second: in any span
// of t seconds it is allowed at most Burst + Rate × t times. Allow takes a token. Where only failures count, as in
// authentication, Blocked checks before the attempt and Fail takes a token after a failure, so that success costs
// nothing.
//
// # Memory
//
// A bucket is one number, the time at which it will be full again (the "theoretical arrival time" of the generic cell
// rate algorithm). A full bucket therefore says no more than a missing one, and another key can reuse its place at no
// loss. Any other bucket is never evicted: a flood of new keys cannot make patd forget a limited one. The table has a
// fixed number of places, of 17 bytes each in total, which are allocated at the start and hold no pointers; keys are
// kept as a 64-bit hash with a random seed.
//
// # Under a flood
//
// The table is divided into sets of eight places, and a key's hash selects its set. If a new key finds its set full of
// buckets in use, it shares a coarse bucket with its group: for an address the network around it (the /24 of IPv4, the
// /48 of IPv6), for a name the name itself. A hash spreads the groups over one coarse bucket per set. So a flood is
// limited, since all keys that do not fit into the table get together what one key per coarse bucket would get. It does
// not lock everyone out either: known keys keep their own buckets, and new keys suffer only in the flood's own network
// and in the few groups that share its coarse bucket by chance.
//
// A key that gets its own place starts from the state of its coarse bucket. So the bound above holds for every key at
// any time, however often it is evicted and comes back.
//
// Nothing here starts a goroutine, and each call is O(1).
package limit
