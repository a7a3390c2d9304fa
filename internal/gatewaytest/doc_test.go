// Package gatewaytest shows that programs which others wrote accept patd's tokens with configuration alone: nginx,
// Caddy and Apache with two different modules in front of an upstream, and the OAuth client libraries oauth4webapi,
// openid-client and Authlib. The programs are those of the system's packages and of npm, run as they are, against the
// real patd.
//
// Every gateway goes through the same guarantees (guard_test.go): a good token passes, one without the scope does not,
// a revoked one is refused on the very next request, and while patd or its store is out nobody gets in; whatever a
// client writes into the headers that tell the upstream who calls never arrives there.
//
// The configurations in testdata are those that docs/ shows, word for word; the tests change nothing but addresses
// and file names in them.
//
// Where a program is missing its test is skipped, unless CI is set in the environment: there it fails.
package gatewaytest
