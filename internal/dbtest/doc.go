// Package dbtest runs real database servers for tests: a PostgreSQL or a MariaDB of the test's own, in a temporary
// directory, on loopback, that can be killed, frozen and started again.
//
// The servers' binaries are those of the system's packages (Debian: postgresql, mariadb-server). Where they are missing
// a test is skipped, unless CI is set in the environment: there a missing server is a failure, for a test that does
// not run proves nothing. What a server has committed outlives its process, though not the machine: it does not sync to
// disk. Nothing is kept after the test.
package dbtest
