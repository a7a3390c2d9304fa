// Package replicatest shows that several patd on one PostgreSQL are one patd: real processes, a real database, and what
// goes wrong between them.
//
//   - fresh_test.go: what one replica revokes the others refuse in time, also when nobody is notified.
//   - racing_test.go: names, limits, idempotency keys and last uses are right wherever the calls arrive.
//   - linear_test.go: recorded histories of revoke, suspend, resume and introspect are checked by porcupine.
//   - chaos_test.go: replicas, database and connections are killed at random, and no answered change is lost.
//   - outage_test.go and cut_test.go: a database that stands still, has no connection left, or is cut off in a commit.
//   - litestream_test.go: a store in a file is copied by Litestream, and restored when its machine is lost.
//   - receipts_test.go: a call that waits until all refuse is told so quickly, and never too soon.
//   - upgrade_test.go: two versions of patd on either version of the schema.
//
// The times are those of a busy machine: nothing here is a benchmark. PATD_CHAOS and
// PATD_FRESH, durations, say how long the chaos lasts and the measurement of what revoking takes.
package replicatest
