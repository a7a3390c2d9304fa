// Package rpc holds the handlers that manage things: tokens, users, services, features, audiences, the audit log and reports of leaks. A
// handler turns a message into a call of tokens.Service and its result back, and decides nothing.
package rpc
