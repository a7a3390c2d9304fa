// Package storeadmin holds the commands that work on the store itself, whether the server runs or not: services, keys,
// backup, restore, migrate, check, copy and pruning of the audit log. Open opens a store and checks that its keys
// belong to it.
package storeadmin
