// Package receipt finds out when a change has reached every verifier that watches this server, for calls that wait for
// that.
//
// A [Board] has an entry for each watch, open or lately ended. A watch has a position of the change feed for each
// message, and with its next message it asks the verifier to acknowledge, if a call waits for the position. A watch is
// safe for a position when one of these holds:
//
//   - The verifier has acknowledged it: no check of it rests on an answer from before.
//   - So long has passed since its last message without the change that the verifier no longer uses its memory, unless
//     it has received the change ([Bound]). A connection keeps its order, so a later message opens the memory only
//     after the change was applied.
//
// docs/verifier-protocol.md has the rule of the verifier and the proof.
package receipt
