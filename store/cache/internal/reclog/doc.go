// Package reclog keeps records in memory by id, within a bound: bytes without pointers, which the garbage collector
// does not look into. It knows nothing of what they hold.
//
// # The log
//
// Records are appended to segments until those are full, and an [Index] of eight bytes an entry finds them. When there
// is no room left the oldest segment goes, and with it what was not read since it was written; what was read is written
// again to the newest. A segment lives on for as long as anybody holds a record, or a string that is part of one:
// records are never written again, but for their marks and for what their owner guards.
//
// # Readers without a lock
//
// The owner's lock guards a [Log]. [Log.Look] and [Prefetch] read without it, from a view: the index and the segments
// as they were when either was last replaced. A reader may miss a record that is just being written or moved, and see
// one that has just been taken out; what it sees is whole. A caller that needs more checks a version before and
// after.
//
// # Waiting for memory
//
// A record of a million is in none of the processor's caches, mostly, and waiting for memory is most of what a look
// takes.
// [Prefetch] has the processor wait for many records at once.
package reclog
