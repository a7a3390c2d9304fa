// Package metrics is what the server counts and times, in the form of Prometheus. Series that a label names exist from the start or
// are made when their method is registered, never by a name that a caller chose.
package metrics
