// Package features is where a user's features come from when patd does not keep them itself: the company's own
// database, asked by a query that the operator writes ([SQL]), or the company's own endpoint ([Callback]).
//
// Each is a tokens.FeatureSource and keeps to its contract: an unknown user holds nothing, which is an answer; whatever
// is not a whole and well-formed answer is an outage, which is an error of tokens.CodeUnavailable. There is nothing in
// between. One malformed name, one row or byte too many, a status that was not agreed upon: no part of such an answer is
// used, for what it leaves out would look like features taken away, and what it adds like features given.
//
// # Asked through a cache
//
// [Cached] is the one wrapper that all sources are used through; [Open] makes it. It answers from memory for the
// TTL, lets one question per user be under way at a time, and during an outage serves what was last known, marked as
// stale and no longer than a bound. What is minted is asked afresh, always: a fresh answer never comes from memory.
// [Cached.Forget] makes a change in the company's system count at once.
//
// # What a source is trusted with
//
// A source hears user ids and nothing else: never a token, never a name. The user id reaches a database only as a bound
// parameter, in a read-only transaction of a read-only session. It reaches an endpoint only over TLS, in a body
// signed as package signature tells, at an address that is public unless the operator allowed a private one.
// Neither what a source answers nor a credential appears in an error.
package features
