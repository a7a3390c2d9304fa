package tokens

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ReasonPrecondition is the reason of a change that was rejected because a precondition did not hold.
const ReasonPrecondition = "PRECONDITION_FAILED"

// Precondition is what a caller requires of the present state before a change (RFC 9110 section 13). The zero
// Precondition requires nothing. Tags are strong entity tags with their quotes.
type Precondition struct {
	// Match, if not nil, lists tags, one of which must be the present one (If-Match).
	Match []string
	// MatchAny requires that there is a record (If-Match: *).
	MatchAny bool
	// NoneMatch lists tags, none of which may be the present one (If-None-Match).
	NoneMatch []string
	// MatchNone requires that there is no record (If-None-Match: *).
	MatchNone bool
}

// Holds reports whether the precondition holds for a state with that tag; an empty tag means that there is none.
func (p Precondition) Holds(tag string) bool {
	there := tag != ""
	switch {
	case p.MatchAny && !there, p.MatchNone && there:
		return false
	case p.Match != nil && (!there || !slices.Contains(p.Match, tag)):
		return false
	}
	return !there || !slices.Contains(p.NoneMatch, tag)
}

type preconditionKey struct{}

// WithPrecondition returns a context in which a change is made only if the precondition holds. It is checked inside the
// change's transaction. It applies to changes of one token, user, feature or audience; callers must refuse it
// themselves for all others.
func WithPrecondition(ctx context.Context, p Precondition) context.Context {
	return context.WithValue(ctx, preconditionKey{}, p)
}

// expect refuses a change whose precondition does not hold for the present state. tag is called only if there is a
// precondition.
func expect(ctx context.Context, tag func() (string, error)) error {
	p, ok := ctx.Value(preconditionKey{}).(Precondition)
	if !ok {
		return nil
	}
	now, err := tag()
	if err != nil {
		return err
	}
	if !p.Holds(now) {
		return Fail(
			CodeAborted,
			ReasonPrecondition,
			"a precondition does not hold: it was changed since it was read, or is there already; read it again",
		)
	}
	return nil
}

// expectTag is expect where the tag is at hand.
func expectTag(ctx context.Context, of interface{ ETag() string }) error {
	return expect(ctx, func() (string, error) { return of.ETag(), nil })
}

// etag returns a strong entity tag of parts.
func etag(parts ...string) string {
	sum := sha256.Sum256([]byte(framed(parts...)))
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:15]) + `"`
}

func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixMicro(), 10)
}

// ETag returns the entity tag of a token. Each change, rotation, block and revocation changes the tag; a use and the
// expiry do not.
func (t Token) ETag() string {
	parts := []string{
		"token",
		t.ID.String(),
		t.User,
		t.Name,
		t.Description,
		framed(t.Scopes...),
		framed(t.Audiences...),
		fmt.Sprint(t.CIDRs),
		instant(t.IssueTime),
		instant(t.ExpireTime),
		t.BlockedBy,
		strconv.FormatInt(t.Rotations, 10),
	}
	if t.SelfRotate {
		parts = append(parts, "self_rotate", instant(t.RenewableUntil))
	}
	for _, p := range t.Paused {
		parts = append(parts, "paused", p.Scope, instant(p.Time))
	}
	for _, k := range slices.Sorted(maps.Keys(t.Labels)) {
		parts = append(parts, k, t.Labels[k])
	}
	if r := t.Revocation; r != nil {
		parts = append(parts, "revoked", instant(r.Time), r.By, r.Reason)
	}
	return etag(parts...)
}

// ETag returns the entity tag of a user's record without its features; empty: patd has no record of the user.
func (u User) ETag() string {
	if u.Key == 0 {
		return ""
	}
	return etag("user", u.ID, strconv.FormatInt(u.Key, 10), strconv.Itoa(int(u.State)))
}

// ETag returns the entity tag of an entry.
func (e FeatureEntry) ETag() string {
	return etag(
		"feature",
		e.Name,
		e.DisplayName,
		e.Description,
		fmt.Sprint(e.Consent, e.Default, e.Optional, e.Published, e.System),
	)
}

// ETag returns the entity tag of an audience.
func (e AudienceEntry) ETag() string {
	return etag(
		"audience",
		e.ID,
		e.DisplayName,
		e.Resource,
		fmt.Sprint(
			e.DefaultTTL.Microseconds(),
			e.MaxTTL.Microseconds(),
			e.AllowNever,
			e.AllowOffline,
			e.AccessTTL.Microseconds(),
			e.AccessFormat,
			e.RequireNamed,
		),
	)
}

// featuresTag returns the entity tag of a user's features, as the catalogue describes them.
func featuresTag(u User, held []FeatureEntry) string {
	if u.Key == 0 {
		return ""
	}
	var b strings.Builder
	for _, e := range held {
		b.WriteString(e.ETag())
	}
	return etag("features", u.ID, strconv.FormatInt(u.Key, 10), b.String())
}
