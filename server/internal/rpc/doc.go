// Package rpc holds the handlers of the management API: tokens, users, services, features, audiences, webhooks, the
// audit log and leak reports. A handler converts a message to a call of tokens.Service and converts the result back. It
// decides nothing.
package rpc
