// Package receipt finds out when a change has reached every server of the store and every verifier that watches one, for
// calls that wait for that.
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
// Of the other servers a call knows through the table of servers ([tokens.Servers]), which it has read after its change:
// those that are there are asked, and answer once their own watches are safe ([Board.Follow]); those that do not answer,
// or have ended, are safe after a while by their own rule.
//
// docs/verifier-protocol.md has the rules of verifiers and servers, and the proof.
package receipt
