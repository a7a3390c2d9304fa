// Package connection bounds the connections of each listener: how many there are, how many of them have shown no good
// credential, how long they live, and how much is read from an unknown peer. Of and OfPeer find the connection of a
// request.
package connection
