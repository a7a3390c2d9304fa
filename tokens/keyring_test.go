package tokens_test

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"patd/tokens"
	"patd/tokens/secret"
)

var (
	lineA = "a:" + strings.Repeat("ab", 32)
	lineB = "b:" + strings.Repeat("cd", 32)
)

func TestKeyFileThatIsNotOneIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "blank": "\n \n", "comment": "# only\n", "no id": ":" + strings.Repeat("ab", 32), "cut": lineA[:40],
		"garbage": "\x00\xff\xfe", "short": "a:abcd", "long": lineA + "ab", "not hex": "a:" + strings.Repeat("zz", 32),
		"twice": lineA + "\n" + lineA, "zeros": "a:" + strings.Repeat("00", 32), "second cut": lineA + "\n" + lineB[:30],
		"endless": "a:" + strings.Repeat("ab", 100_000),
	} {
		ks, err := secret.ParseKeys(text)
		if err == nil {
			t.Errorf("%s: taken with keys %v", name, ks.Names())
			continue
		}
		if strings.Contains(err.Error(), "abab") || strings.Contains(err.Error(), "cdcd") {
			t.Errorf("%s: the error repeats the key: %v", name, err)
		}
	}
}

func TestFirstKeyIsCurrentAndEveryKeyMatches(t *testing.T) {
	old := parseKeys(t, lineA+"\n")
	both := parseKeys(t, "# rotated\n"+lineB+"\r\n\n"+lineA)
	s := secret.NewSecret(example)
	if h := both.Digest(s); h.Key != "b" {
		t.Errorf("digest under %s, want the first key", h.Key)
	}
	if ok, err := both.Match(s, old.Digest(s)); !ok || err != nil {
		t.Errorf("digest under the older key: %v, %v", ok, err)
	}
	if ok, err := both.Match(secret.NewSecret(example+"x"), old.Digest(s)); ok || err != nil {
		t.Errorf("another secret: %v, %v", ok, err)
	}
	if _, err := old.Match(s, both.Digest(s)); err == nil {
		t.Error("a digest under a key that is not loaded was answered")
	}
}

func TestVerifyNoticesMissingAndWrongKeys(t *testing.T) {
	ks := parseKeys(t, lineB+"\n"+lineA)
	record := func(ks *tokens.Keys, name string, retired bool) tokens.KeyRecord {
		check, ok := ks.Check(name)
		if !ok {
			t.Fatalf("no key %s", name)
		}
		r := tokens.KeyRecord{Name: name, Check: check}
		if retired {
			r.RetireTime = time.Unix(1, 0)
		}
		return r
	}
	other := parseKeys(t, "a:"+strings.Repeat("ef", 32)+"\nc:"+strings.Repeat("12", 32))
	for name, c := range map[string]struct {
		known []tokens.KeyRecord
		good  bool
	}{
		"new store":             {nil, true},
		"its keys":              {[]tokens.KeyRecord{record(ks, "a", false), record(ks, "b", false)}, true},
		"one of them":           {[]tokens.KeyRecord{record(ks, "a", false)}, true},
		"wrong key":             {[]tokens.KeyRecord{record(other, "a", false)}, false},
		"missing key":           {[]tokens.KeyRecord{record(ks, "a", false), record(other, "c", false)}, false},
		"missing, but retired":  {[]tokens.KeyRecord{record(ks, "a", false), record(other, "c", true)}, true},
		"current one retired":   {[]tokens.KeyRecord{record(ks, "b", true)}, false},
		"older one retired":     {[]tokens.KeyRecord{record(ks, "a", true), record(ks, "b", false)}, true},
		"wrong one though done": {[]tokens.KeyRecord{record(other, "a", true)}, false},
	} {
		if err := ks.Verify(c.known); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewKeyLineParses(t *testing.T) {
	line, err := secret.NewKeyLine("k2026-11", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if ks := parseKeys(t, line.Reveal()); ks.Current() != "k2026-11" {
		t.Errorf("current key is %s", ks.Current())
	}
	if _, err := secret.NewKeyLine("a b", rand.Reader); err == nil {
		t.Error("a key id with a space is taken")
	}
}
