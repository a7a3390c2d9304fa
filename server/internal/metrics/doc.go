// Package metrics holds the server's Prometheus metrics. Labeled series exist from the start or are made when their
// method is registered, never from a name that a caller chose.
package metrics
