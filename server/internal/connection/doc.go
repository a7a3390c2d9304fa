// Package connection bounds the connections of each listener: how many there are, how many of them have shown no good
// credential, and how long they live. Of and OfPeer find the connection of a request.
package connection
