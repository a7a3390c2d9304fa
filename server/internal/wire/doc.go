// Package wire is what more than one room needs between messages of patd.v1 and the domain: times, durations, addresses and
// networks in both directions, and the bounds on how much a message may hold, which are counted before it is decoded.
package wire
