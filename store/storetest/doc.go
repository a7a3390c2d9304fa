// Package storetest is for testing stores and what stands on them.
//
// Run is the suite that every tokens.Store passes: it is the port's contract, executed. Faulty wraps a store and
// injects outages, in the middle of a transaction too, and endless waits. Fill loads a store with many tokens, for
// benchmarks. Only tests import this package.
package storetest
