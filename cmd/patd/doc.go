// Patd issues, checks and revokes personal access tokens.
//
//	patd dev                       throw-away store, a demo user, lines to paste
//	patd serve --data-dir DIR      the service
//	patd service create NAME …     a service token, on the store itself
//	patd token, user, introspect   over gRPC, as a service; events too
//	patd feature, audience         over gRPC: the catalogue, and lifetimes per API
//	patd keys, backup, restore     looking after a store; check too
//
// The package names the concrete types behind the others' interfaces. It opens the store, reads the digest keys, opens
// the source of features and the verifier of sign-ins, makes the token service and hands it to the server. Commands are
// small: package tokens makes their decisions. The files under testdata are their specification.
//
// Settings come from flags, from the environment as PATD_<FLAG>, and from --config FILE, in this order of precedence.
// Secrets come from files, standard input or the environment, never from arguments, which everybody on a machine can
// read. Secrets are redacted from errors before they are printed.
package main
