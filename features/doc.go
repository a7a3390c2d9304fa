// Package features provides a user's features when patd does not keep them itself: from the company's own database, by
// a query that the operator writes ([SQL]), or from the company's own endpoint ([Callback]).
//
// Each is a tokens.FeatureSource and keeps to its contract: an unknown user holds nothing, which is an answer. Anything
// but a whole and well-formed answer is an outage, an error of tokens.CodeUnavailable. There is nothing in between.
// After one malformed name, one row or byte too many, or an unexpected status, no part of the answer is used: missing
// names would look like features taken away, and extra ones like features given.
//
// # The cache
//
// [Cached] wraps every source; [Open] makes it. It answers from the cache for the TTL and lets one request per user be
// under way at a time. During an outage it serves the last known answer, marked as stale and no longer than a bound.
// Minting always asks the source: a fresh answer never comes from the cache. [Cached.Forget] makes a change in the
// company's system take effect at once.
//
// # What a source is trusted with
//
// A source receives user ids and nothing else: never a token, never a name. The user id reaches a database only as a
// bound parameter, in a read-only transaction of a read-only session. It reaches an endpoint only over TLS, in a body
// signed as package signature describes, at an address that is public unless the operator allowed a private one. No
// error contains a source's answer or a credential.
package features
