// Package remote holds the commands that work over gRPC, with a service token or as the person who signed in: signing
// in and out, tokens, users, features, audiences, introspection, the audit log and rules for secret scanners.
package remote
