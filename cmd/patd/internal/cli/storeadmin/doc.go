// Package storeadmin holds the commands that work on the store itself, the server running or not: services, keys, backup, restore,
// migrate, check, copy and pruning of the audit log. Open opens a store and makes sure that its keys belong to it.
package storeadmin
