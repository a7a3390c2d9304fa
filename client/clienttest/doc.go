// Package clienttest helps to test programs that use package client. It is for tests only.
//
// [Fake] is a client.Checker that returns configured results: enough for tests of handlers.
//
// [Server] is an IntrospectionService inside the test's own process, over in-memory connections. A test can mint,
// rotate, block and revoke tokens, bind them to networks, suspend users, and make audiences require their name. It can
// also cut or hang the connections. The Server decides by the rules of patd itself. A client.Verifier works with it as
// with patd, so a test of a whole program can show that a revoked token is refused at once, and that an outage is
// reported as one. It runs inside a testing/synctest bubble too.
package clienttest
