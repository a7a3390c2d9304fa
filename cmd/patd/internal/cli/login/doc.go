// Package login signs a person in at an OpenID provider, for the commands that call a server: with a browser
// (authorization code with PKCE on a loopback address, RFC 8252), or on another device (RFC 8628). It keeps the
// credential in a file that only its owner can read, one for each server, and refreshes it before it ends.
//
// The credential goes to the provider that issued it and to the server that it was made for, and nowhere else: not into
// arguments, variables, logs or errors.
package login
