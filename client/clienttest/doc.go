// Package clienttest helps to test programs that use package client. It is for tests only.
//
// [Fake] is a client.Checker that answers what it was told to: enough for tests of handlers.
//
// [Server] is an IntrospectionService inside the test's own process, over connections that exist in memory only: tokens can be
// minted, rotated, bound to networks, blocked, revoked and suspended in it, audiences can be made to require their name, and its
// connections can be cut, or hang. It decides by the rules of patd itself. A client.Verifier works with it as it
// does with patd: it sees what the test of a whole program should show, that a revoked token is refused at once, and that
// an outage is answered as one. It runs inside a testing/synctest bubble too.
package clienttest
