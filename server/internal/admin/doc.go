// Package admin serves the operators' pages, at /admin and below: users, all tokens, events, services, audiences,
// features, keys and the server's health.
//
// An operator is a signed-in person with permissions, see signin. Every call is made with [frame.Request.Operate], so
// that the table of rights decides, and events name operator:<user id>. A page shows links and forms only for what its
// reader may do; that they are not shown protects nothing.
//
// What ends much says beforehand how much, and its form takes the number back. The domain compares it with what the
// change would end (tokens.WithCount), in the change's own transaction. No page acts as a user.
package admin
