package tokens

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"patd/tokens/secret"
)

// Limits of single fields.
const (
	maxUserID      = 255
	maxScope       = 128
	maxName        = 100 // characters
	maxDescription = 1000
	maxReason      = 500
	maxAudience    = 255
	maxClientID    = 255
	maxLabelKey    = 63 // bytes
	maxLabelValue  = 255
	minRequestID   = 16
	maxRequestID   = 255
)

// checker collects all violations of a request, so that the caller receives them at once.
type checker struct{ found []Violation }

func (c *checker) add(field, reason, text string) {
	c.found = append(c.found, Violation{Field: field, Description: text, Reason: reason})
}

func (c *checker) err() error {
	if len(c.found) == 0 {
		return nil
	}
	return invalid(c.found)
}

func (c *checker) description(s string) {
	c.text("description", s, maxDescription, true)
}

func (c *checker) reason(s string) {
	c.text("reason", s, maxReason, true)
}

// ValidUser reports whether s is a valid id for a new user: opaque, 1 to 255 bytes of UTF-8 without control characters,
// not only white space, not LostInPath, not `me`, and without a credential in it.
func ValidUser(s string) bool {
	var c checker
	c.newUser(s)
	return c.err() == nil
}

// newUser checks the id of a new user, see ValidUser.
func (c *checker) newUser(s string) {
	before := len(c.found)
	if c.user(s); len(c.found) > before {
		return
	}
	if text := newID(s); text != "" {
		c.add("user", "USER_INVALID", text)
	}
}

// user checks the form of a user id, which may be older than the rules of newUser.
func (c *checker) user(s string) {
	switch {
	case s == "" || len(s) > maxUserID:
		c.add("user", "USER_INVALID", fmt.Sprintf("a user id has 1 to %d bytes", maxUserID))
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		c.add("user", "USER_INVALID", "a user id is UTF-8 without control characters")
	case s == "me":
		c.add("user", "USER_INVALID", "`me` stands for a signed-in user, and this caller is none; give the user's id")
	case secret.ContainsSecret(s):
		c.add("user", "SECRET_IN_FIELD", "holds the secret of a token; revoke that token, it may have been seen")
	}
}

// ValidScope reports whether s is the name of a feature: an OAuth scope-token (RFC 6749 section 3.3) of 1 to 128 bytes
// that is not LostInPath.
func ValidScope(s string) bool { return scopeToken(s) && !LostInPath(s) }

// scopeToken reports whether s has the form of a feature's name, which may be older than the rules of ValidScope: 1 to
// 128 bytes of %x21 / %x23-5B / %x5D-7E.
func scopeToken(s string) bool {
	if s == "" || len(s) > maxScope {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// scopeForm describes the names that ValidScope accepts.
const scopeForm = "1 to 128 printable ASCII characters without space, quote and backslash (RFC 6749 section 3.3), " +
	"and not `.` or `..`, nor such a part between slashes"

// scopes checks the form of scope names and returns them sorted, without duplicates. tooMany is the reason for more
// than limit.
func (c *checker) scopes(field, tooMany string, in []string, limit int) []string {
	return c.scopesOf(ValidScope, field, tooMany, in, limit)
}

// storedScopes is scopes for stored names, which may be older than the rules of ValidScope.
func (c *checker) storedScopes(field, tooMany string, in []string, limit int) []string {
	return c.scopesOf(scopeToken, field, tooMany, in, limit)
}

func (c *checker) scopesOf(valid func(string) bool, field, tooMany string, in []string, limit int) []string {
	out := set(in)
	for i, s := range in {
		at := fmt.Sprintf("%s[%d]", field, i)
		if !valid(s) {
			c.add(at, "SCOPE_INVALID", "a scope is "+scopeForm)
		} else if secret.ContainsSecret(s) {
			c.add(at, "SECRET_IN_FIELD", "holds the secret of a token; revoke that token, it may have been seen")
		}
	}
	if len(out) > limit {
		c.add(field, tooMany, fmt.Sprintf("at most %d", limit))
	}
	return out
}

// lifetime checks a lifetime as far as possible without its policy.
func (c *checker) lifetime(l Lifetime) {
	given := 0
	for _, b := range []bool{l.ExpireTime != nil, l.TTL != nil, l.Never} {
		if b {
			given++
		}
	}
	if given > 1 {
		c.add("expire_time", "LIFETIME_AMBIGUOUS", "give only one of expire_time, ttl and never_expires")
	}
}

// newAudience checks an audience that will be stored: the id of an entry, or the name in a token or a service.
func (c *checker) newAudience(field, s string) {
	before := len(c.found)
	if c.audience(field, s); len(c.found) > before {
		return
	}
	if text := newID(s); text != "" {
		c.add(field, "AUDIENCE_INVALID", text)
	}
}

// audience checks the form of an audience that may be stored already.
func (c *checker) audience(field, s string) {
	if s == "" || len(s) > maxAudience || !utf8.ValidString(s) ||
		strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
		c.add(
			field,
			"AUDIENCE_INVALID",
			fmt.Sprintf("an audience is 1 to %d bytes of UTF-8 without white space", maxAudience),
		)
	} else if secret.ContainsSecret(
		s,
	) {
		c.add(field, "SECRET_IN_FIELD", "holds the secret of a token; revoke that token, it may have been seen")
	}
}

// newAudiences checks the audiences of a new token, and returns them sorted, without duplicates.
func (c *checker) newAudiences(in []string, limit int) []string {
	out := c.audiences(in, limit)
	for i, s := range in {
		if text := newID(s); text != "" && s != "" {
			c.add(fmt.Sprintf("audiences[%d]", i), "AUDIENCE_INVALID", text)
		}
	}
	return out
}

func (c *checker) audiences(in []string, limit int) []string {
	out := set(in)
	for i, s := range in {
		c.audience(fmt.Sprintf("audiences[%d]", i), s)
	}
	if len(out) > limit {
		c.add("audiences", "TOO_MANY_AUDIENCES", fmt.Sprintf("at most %d", limit))
	}
	return out
}

func (c *checker) labels(in map[string]string, limit int) {
	if len(in) > limit {
		c.add("labels", "TOO_MANY_LABELS", fmt.Sprintf("at most %d", limit))
		return
	}
	for k, v := range in {
		switch {
		case k == "" || len(k) > maxLabelKey:
			c.add("labels", "LABEL_INVALID", fmt.Sprintf("a label's key has 1 to %d bytes", maxLabelKey))
		case len(v) > maxLabelValue:
			c.add("labels", "LABEL_INVALID", fmt.Sprintf("a label's value has at most %d bytes", maxLabelValue))
		case !utf8.ValidString(k) || !utf8.ValidString(v) || strings.ContainsFunc(k+v, unicode.IsControl):
			c.add("labels", "LABEL_INVALID", "labels are UTF-8 without control characters")
		case strings.ContainsFunc(k+v, reorders) || strings.ContainsFunc(k, ignorable) || !shows(k):
			c.add(
				"labels",
				"LABEL_INVALID",
				"labels hold no characters that reorder text, and their keys none that are invisible; leave them out",
			)
		case secret.ContainsSecret(k) || secret.ContainsSecret(v):
			c.add("labels", "SECRET_IN_FIELD", "holds the secret of a token; revoke that token, it may have been seen")
		}
	}
}

// cidrs parses networks. A lone address is a network of one; IPv4-mapped IPv6 is IPv4; host bits are cut off.
func (c *checker) cidrs(in []string, limit int) []netip.Prefix {
	if len(in) > limit {
		c.add("allowed_cidrs", "TOO_MANY_CIDRS", fmt.Sprintf("at most %d", limit))
		return nil
	}
	out := make([]netip.Prefix, 0, len(in))
	for i, s := range in {
		p, err := ParseCIDR(s)
		if err != nil {
			c.add(
				fmt.Sprintf("allowed_cidrs[%d]", i),
				"CIDR_INVALID",
				"must be a network such as 192.0.2.0/24 or 2001:db8::/32",
			)
			continue
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// ParseCIDR parses one network: an address and its length, or a lone address. IPv4-mapped IPv6 becomes IPv4, so that it
// means the same clients; host bits are cut off. An address with a zone is rejected, and so is ::ffff:10.0.0.0/8: cut
// to eight bits it would be ::/8, which means other clients than intended.
func ParseCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, aerr := netip.ParseAddr(s)
		if aerr != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("not a network: %w", err)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if a := p.Addr(); a.Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, errors.New("not a network: write one of IPv4-mapped addresses as one of IPv4")
		}
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// AddressAllowed reports whether an address is in one of the networks. No networks allow any address, even an unknown
// one. An unknown address is in no network.
func AddressAllowed(nets []netip.Prefix, a netip.Addr) bool {
	if len(nets) == 0 {
		return true
	}
	if !a.IsValid() {
		return false
	}
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// set returns a sorted copy without duplicates.
func set(in []string) []string {
	out := slices.Clone(in)
	if out == nil {
		out = []string{}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
