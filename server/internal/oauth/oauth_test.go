package oauth

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"

	"patd/server/internal/call"
	"patd/server/internal/fault"
	"patd/tokens"
	"patd/tokens/secret"
)

// TestOAuthErrorsAreInTheTable goes through all codes and reasons: each has a name of an RFC's, and what is an outage
// is one.
func TestOAuthErrorsAreInTheTable(t *testing.T) {
	known := map[string]bool{
		"invalid_request":         true,
		"invalid_client":          true,
		"invalid_grant":           true,
		"unsupported_grant_type":  true,
		"invalid_scope":           true, // RFC 6749
		"invalid_target":          true,
		"unsupported_token_type":  true,
		"insufficient_scope":      true,
		"server_error":            true,
		"temporarily_unavailable": true, // RFC 8707, 7009, 6750, 6749 section 4.1.2.1
	}
	all := fault.OAuthReasons()
	for _, c := range fault.Classes() {
		all[c.Name] = c.OAuth
	}
	for what, e := range all {
		if !known[e.Name] || e.HTTP < 400 || e.HTTP > 503 {
			t.Errorf("%s: %+v", what, e)
		}
	}
	for _, c := range []tokens.Code{tokens.CodeUnavailable, fault.CodeDeadline, fault.CodeCanceled} {
		if got := fault.OAuthOf(tokens.Fail(c, "X", "x")); got.HTTP != 503 || got.Name != "temporarily_unavailable" {
			t.Errorf("code %d: %+v", c, got)
		}
	}
	if got := describable("a \"b\" \\ `c` ü\n" + "pat_15ODq7pq8Hy"); got != `a 'b' ? 'c' ??pat_15ODq7pq8Hy` {
		t.Errorf("a description: %s", got)
	}
	if got := describable(
		"of pat_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0QDLb0",
	); got != "[withheld: it holds a secret]" {
		t.Errorf("a description with a secret: %s", got)
	}
	for _, target := range []string{"a\x00", "\xff", "https://x/pat_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0QDLb0"} {
		for _, name := range []string{"audience", "resource"} {
			if _, _, err := readTargets(
				form{name: {"good", target}},
			); err == nil ||
				fault.OAuthOf(fault.Public(err)).Name != "invalid_target" {
				t.Errorf("%s %q: %v", name, target, err)
			}
		}
	}
}

// FuzzBasicCredential reads headers. A credential that is read comes out as it was written, raw or encoded, and nothing
// else is read from what is none.
func FuzzBasicCredential(f *testing.F) {
	for _, seed := range []string{"", "a:b", "a%3Ab:c%20d", ":", "a:", ":b", "a", "%zz:b", "a+b:c", "\xff:\x00", "a:b:c", "gate.way-1_x:pats_15ODq7pq8Hy_x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		header := "Basic " + base64.StdEncoding.EncodeToString([]byte(raw))
		shown, err := readCredential([]string{header}, form{})
		id, secret, colon := strings.Cut(raw, ":")
		wantID, idErr := url.QueryUnescape(id)
		wantSecret, secretErr := url.QueryUnescape(secret)
		if good := colon && idErr == nil && secretErr == nil && wantID != "" && wantSecret != ""; good != (err == nil) {
			t.Fatalf("%q: %v", raw, err)
		}
		if shown.scheme != schemeBasic || err == nil && (shown.name != wantID || shown.secret.Reveal() != wantSecret) {
			t.Errorf("%q: %q", raw, shown.name)
		}
		if err != nil && !call.IsBadCredential(err) {
			t.Errorf("%q: %v", raw, err)
		}
		for _, header := range []string{raw, "Basic " + raw, "Bearer " + raw} {
			if shown, err := readCredential(
				[]string{header},
				form{"client_id": {"app"}},
			); err == nil &&
				shown.secret.IsEmpty() {
				t.Errorf("%q is taken as no credential", header)
			}
		}
	})
}

// FuzzForm reads forms. What is read is what net/url reads, without empty values and without repetition but of targets;
// no error repeats a secret.
func FuzzForm(f *testing.F) {
	const s = "pat_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0QDLb0"
	for _, seed := range []string{"", "token=SECRET", "a=1&a=2", "audience=a&audience=b&resource=", "SECRET=1&SECRET=2", "%zz=SECRET", "a;b=SECRET", "=", "&&", "a", "a=%00%ff", "+=+"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseForm(strings.ReplaceAll(text, "SECRET", s))
		if err != nil {
			if e := fault.Public(
				err,
			); e.Code != tokens.CodeInvalid || secret.ContainsSecret(e.Message) ||
				fault.OAuthOf(e).Name != "invalid_request" {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		for name, values := range got {
			for _, v := range values {
				if v == "" {
					t.Errorf("%q: an empty %q", text, name)
				}
			}
			if len(values) == 0 || len(values) > 1 && name != "audience" && name != "resource" ||
				got.one(name) != values[0] {
				t.Errorf("%q: %q is %q", text, name, values)
			}
		}
	})
}

// FuzzScope reads scopes: sorted names without duplicates, or a refusal.
func FuzzScope(f *testing.F) {
	for _, seed := range []string{"", "a", "b a b", "offline_access", "a  b", " ", "a\tb", `"`, "ü", "offline_access a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		scopes, offline, err := readScope(text)
		if err != nil {
			if fault.OAuthOf(fault.Public(err)).Name != "invalid_scope" {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if offline != (" "+text+" " != strings.ReplaceAll(" "+text+" ", " offline_access ", " ")) {
			t.Errorf("%q: offline %v", text, offline)
		}
		for i, s := range scopes {
			if !tokens.ValidScope(s) || s == scopeOffline || i > 0 && s <= scopes[i-1] ||
				!strings.Contains(" "+text+" ", " "+s+" ") {
				t.Errorf("%q: %q", text, scopes)
			}
		}
	})
}
