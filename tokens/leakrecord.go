package tokens

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"patd/tokens/secret"
)

// Leak is what the Detail of an event of ActionTokenLeaked says: where a live secret was found, and what it could do
// then.
type Leak struct {
	What string // token, access token, refresh token or service
	// By is the partner that reported it; empty: anybody.
	By string
	// Place is the kind of place, such as commit, and URL the address; empty: not known.
	Place, URL string
	// Effective are the scopes that were in effect, and Suspended those that were granted and not held. A service has
	// its permissions in Effective.
	Effective, Suspended []string
	// Unknown says that the source of features did not answer: Effective are all that were granted.
	Unknown bool
	// More is how many scopes were left out: the text is bounded.
	More int
	// LastUsed is the last use of the personal access token, saved at most 60 s late; zero: it was never used.
	LastUsed Use
}

const (
	leakSeparator  = " · " // in no scope, which is ASCII, and in no URL
	maxLeakScopes  = 3000  // bytes
	maxLeakURL     = 1000
	maxLeakPlace   = 40
	leakWhat       = "leaked: "
	leakBy         = "by: "
	leakPlace      = "in: "
	leakURL        = "at: "
	leakEffective  = "in effect: "
	leakGranted    = "granted: "
	leakSuspended  = "suspended: "
	leakMore       = "more scopes: "
	leakLastUsed   = "last used: "
	leakNeverUsed  = "never"
	leakUsedFromIP = " from "
)

// fit leaves out what is not fit for the audit log: a place that is no plain word, and an address that is none of the
// web, is too long or holds a secret.
func (l Leak) fit() Leak {
	l.Place = strings.ToLower(l.Place)
	if len(l.Place) > maxLeakPlace ||
		strings.ContainsFunc(l.Place, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }) {
		l.Place = ""
	}
	u, err := url.Parse(l.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		l.URL = ""
		return l
	}
	u.RawQuery, u.ForceQuery = "", false
	l.URL = u.String()
	plain, err := url.PathUnescape(l.URL)
	printable := !strings.ContainsFunc(l.URL, func(r rune) bool { return r <= ' ' || r > '~' })
	if err != nil || !printable || len(l.URL) > maxLeakURL || secret.ContainsSecret(l.URL) ||
		secret.ContainsSecret(plain) {
		l.URL = ""
	}
	return l
}

// String writes the record as ParseLeak reads it.
func (l Leak) String() string {
	parts := []string{leakWhat + l.What}
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+value)
		}
	}
	add(leakBy, l.By)
	add(leakPlace, l.Place)
	add(leakURL, l.URL)
	room, more := maxLeakScopes, l.More
	scopes := func(names []string) string {
		for i, n := range names {
			if room -= len(n) + 1; room < 0 {
				more += len(names) - i
				names = names[:i]
				break
			}
		}
		return strings.Join(names, " ")
	}
	effective := leakEffective
	if l.Unknown {
		effective = leakGranted
	}
	add(effective, scopes(l.Effective))
	add(leakSuspended, scopes(l.Suspended))
	if more > 0 {
		add(leakMore, fmt.Sprint(more))
	}
	switch {
	case !l.LastUsed.Time.IsZero():
		used := l.LastUsed.Time.UTC().Format(time.RFC3339Nano)
		if l.LastUsed.IP.IsValid() {
			used += leakUsedFromIP + l.LastUsed.IP.String()
		}
		add(leakLastUsed, used)
	case l.What != "service": // whose uses are not saved
		add(leakLastUsed, leakNeverUsed)
	}
	return strings.Join(parts, leakSeparator)
}

// ParseLeak reads the Detail of an event of ActionTokenLeaked. It returns false for any other text.
func ParseLeak(detail string) (Leak, bool) {
	var l Leak
	for part := range strings.SplitSeq(detail, leakSeparator) {
		name, value, ok := strings.Cut(part, ": ")
		if !ok {
			return Leak{}, false
		}
		switch name + ": " {
		case leakWhat:
			l.What = value
		case leakBy:
			l.By = value
		case leakPlace:
			l.Place = value
		case leakURL:
			l.URL = value
		case leakEffective, leakGranted:
			l.Effective, l.Unknown = strings.Fields(value), name+": " == leakGranted
		case leakSuspended:
			l.Suspended = strings.Fields(value)
		case leakMore:
			if _, err := fmt.Sscan(value, &l.More); err != nil {
				return Leak{}, false
			}
		case leakLastUsed:
			if value == leakNeverUsed {
				continue
			}
			at, from, _ := strings.Cut(value, leakUsedFromIP)
			var err error
			if l.LastUsed.Time, err = time.Parse(time.RFC3339Nano, at); err != nil {
				return Leak{}, false
			}
			l.LastUsed.IP, _ = netip.ParseAddr(from)
		default:
			return Leak{}, false
		}
	}
	return l, l.What != ""
}
