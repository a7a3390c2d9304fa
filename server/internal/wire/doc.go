// Package wire holds conversions between messages of patd.v1 and the domain that several packages need: times,
// durations, addresses and networks in both directions. It also bounds the size of a message before it is decoded.
package wire
