// Package reserve keeps room on the disk of a store in a file, for the changes that must not fail when it is full.
//
// A [Reserve] is a file beside the database that holds room and nothing else. When the disk is full, changes fail
// before they get to that room. One that only takes away, such as a revocation, has the reserve given up
// ([Reserve.Release]), runs again and has the room; from then on all others are refused ([Reserve.Keeps]) until the
// reserve can be made again ([Reserve.Watch]). An empty file says that the reserve was given up, to the next start and
// to other processes.
package reserve
