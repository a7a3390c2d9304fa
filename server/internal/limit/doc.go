// Package limit bounds how often something may happen, per caller or per address, in memory that does not grow.
//
// A Limiter is a table of token buckets. Each key has Burst tokens to begin with and gets Rate back per second: in
// any span of t seconds it is allowed at most Burst + Rate × t times. Allow takes a token. Where only failures count, as
// in failed authentication, Blocked looks before the attempt and Fail takes a token after it went wrong, so that
// success costs nothing.
//
// # Memory
//
// A bucket is one number, the time at which it will be full again (the "theoretical arrival time" of the generic cell
// rate algorithm). A full bucket therefore says nothing that its absence would not say, and its place can be given to
// another key at no loss. Any other bucket is never evicted: a flood of new keys cannot make patd forget one that is
// being limited. The table has a fixed number of places, 17 bytes each all told, which are made at the start and hold no
// pointers; keys are kept as a 64-bit hash under a random seed.
//
// # Under a flood
//
// The table is cut into sets of eight places, and a key's hash says in which set it lives. When a new key finds its set
// full of buckets that are in use, it shares a coarse bucket with its group: for an address the network around it (the
// /24 of IPv4, the /48 of IPv6), for a name the name itself. Groups are spread by hash over one coarse bucket per set. So a
// flood neither goes free, since all that does not fit into the table gets together what one key per coarse
// bucket would get; nor does it lock everyone out, since keys that are known keep their own bucket, and strangers
// suffer only in the network that the flood comes from, and in the few that share its coarse bucket by chance.
//
// A key that gets a place of its own begins as its coarse bucket stands. So the bound above holds for every key at any
// time, however often it is pushed out and comes back.
//
// Nothing here starts a goroutine, and each call is O(1).
package limit
