// Package connection bounds the connections of each listener: how many there may be, how many of callers that have shown no good
// credential, and how long they live. A connection that a call needs to know about is found by Of.
package connection
