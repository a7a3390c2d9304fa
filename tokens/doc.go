// Package tokens is the domain of patd: what a token is, what it may do, and who may change it.
//
// # What a token is
//
// A [Token] is a grant: one user, a name, scopes, audiences, networks and an expiry. Its [ID] is public. Its bearer
// holds a secret, a string that is shown once:
//
//	<prefix>_<token id: 11 base62>_<secret: 43 base62><checksum: 6 base62>
//
// The id is 42 bits of milliseconds since 2020 and 22 random bits; the secret is 256 random bits; the checksum is
// CRC-32 (IEEE) of everything before it. The checksum rejects typing errors and made-up strings before any lookup; it
// proves nothing. Base62 is 0-9A-Za-z, most significant digit first, padded with 0. The form never changes: another
// form gets another prefix. The store keeps only a keyed BLAKE2b digest of a secret ([Hash]), with the name of its key.
//
// # What comes of a token
//
// [Service.Exchange] issues a short-lived access token for a personal access token (RFC 8693): an opaque one, which is
// stored ([AccessToken]), or the claims of a JWT, which is not. If the audiences allow it, a refresh token comes with
// it, one of a [Family]: each is used once, for the next one and another access token. All of them name the serial of
// the secret that they came from, and are valid only while it is. So revoking a token ends them at once, and so does a
// rotation without grace, after a leak. Only JWTs live until their own expiry, because services verify them without
// patd.
//
// The bearer of a secret may end it ([Service.FindSecret], [Service.ReportLeaks]); possession is all that it takes.
//
// # What must always hold
//
//   - A secret appears only in the answer that shows it: [Secret] does not print.
//   - Scopes in effect are those granted, without those that the user does not hold now: effective ⊆ granted, effective
//     ⊆ held. Granted scopes are never empty and never widen; there is no wildcard.
//   - No update and no rotation extends a token beyond the lifetime policy. A revoked token stays revoked.
//   - What came from a token never has more rights than the token has now, and outlives neither it, nor the secret, nor
//     the family. A refresh token that is used twice ends its family, access tokens included.
//   - A token mints and manages nothing. Only services and signed-in users do, the latter only for themselves. It rotates
//     itself, and renews itself to an end, only if its owner said so ([Service.RotateSelf]).
//   - A decision is a value ([Decision]). An outage is an error, and never looks like a decision.
//   - A change and its audit [Event] are one transaction; refused attempts leave an event too.
//
// # Who decides
//
// [Service] holds the use cases and is the only place that decides. It reads and writes through [Store] and asks a
// [FeatureSource] what a user holds; the comments of both say what an implementation must do. The pure parts can be
// read and tested by themselves: [Decide] (the decision table), [Effective] and [Missing] (scope algebra),
// [Policy.Expiry] (lifetimes), [Prefixes.Parse] (the form of a secret). Time and randomness come from [Config].
//
// # Compatibility
//
// Issued secrets and token ids stay valid for as long as they live, across versions, configured prefixes and rotated
// keys. Reasons in errors, actions in events and decisions are stable names; new ones may be added.
package tokens
