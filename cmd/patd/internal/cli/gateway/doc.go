// Package gateway writes the configurations of gateways out of a table of routes. They are those of docs/gateways, with
// the routes of the table in place of the page's.
//
// A gateway that takes the first rule that fits gets the paths in the order of the table. Behind each path that a later
// one could fit too, in another case, with a slash at the end or by another method, stands a rule that closes it.
package gateway
