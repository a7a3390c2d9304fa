package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"patd/tokens/refusal"
	"patd/tokens/secret"
)

var update = flag.Bool("update", false, "write vectors.json anew")

// constant is a source of one byte instead of chance.
type constant byte

func (c constant) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(c)
	}
	return len(b), nil
}

// vectorsOfThisPatd are the vectors, as patd itself computes them.
func vectorsOfThisPatd(t *testing.T) vectors {
	t.Helper()
	mint := func(prefix string, chance constant) string {
		id, err := secret.NewID(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), chance)
		if err != nil {
			t.Fatal(err)
		}
		made, err := secret.Mint(prefix, id, chance)
		if err != nil {
			t.Fatal(err)
		}
		return made.Reveal()
	}
	good := mint("pat", 0x5a)
	tail := good[len("pat"):]
	body := strings.TrimSuffix(good, good[len(good)-6:])
	of := func(text string) string { return text + checksum(text) }
	largest, zeroID := "pat_"+good[4:16]+strings.Repeat("z", 43), "pat_"+strings.Repeat("0", 11)+good[15:len(good)-6]
	longest, tooLong := mint("p234567890123456", 1), "p2345678901234567"+tail
	v := vectors{Reasons: map[string]string{}}
	v.Forms = []formVector{
		{"a personal access token", good, true},
		{"one of all zero bits", mint("pat", 0), true},
		{"one of chance that is small", mint("pat", 1), true},
		{"one of chance that is large", mint("pat", 0xff), true},
		{"a short-lived access token", mint("pata", 0x5a), true},
		{"a prefix that is not known", mint("acme", 0x5a), true},
		{"the shortest prefix", mint("ab", 1), true},
		{"the longest prefix", longest, true},
		{"a service token", mint("pats", 0x5a), false},
		{"a refresh token", mint("patr", 0x5a), false},
		{"nothing", "", false},
		{"a prefix of one character", of("p" + tail[:len(tail)-6]), false},
		{"a prefix of 17 characters", of(tooLong[:len(tooLong)-6]), false},
		{"a prefix that begins with a digit", of("1pat" + tail[:len(tail)-6]), false},
		{"a prefix in capitals", of("PAT" + tail[:len(tail)-6]), false},
		{"a prefix with a hyphen", of("p-t" + tail[:len(tail)-6]), false},
		{"no prefix", of(tail[:len(tail)-6]), false},
		{"a wrong checksum", body + "000000", false},
		{"a checksum in capitals", body + strings.ToUpper(good[len(good)-6:]), false},
		{"a character more", good + "0", false},
		{"a character less", good[:len(good)-1], false},
		{"a space in front", " " + good, false},
		{"a new line at the end", good + "\n", false},
		{"the scheme in front", "Bearer " + good, false},
		{"a character that is no base62 in the secret", of(strings.Replace(body, body[20:21], "-", 1)), false},
		{"a hyphen between the parts", of(body[:3] + "-" + body[4:]), false},
		{"an id of zero", of(zeroID), false},
		{"an id of more than 64 bits", of("pat_zzzzzzzzzzz" + body[15:]), false},
		{"a secret of more than 256 bits", of(largest), false},
		{"text that is not ASCII", "päť" + tail, false},
		{"a JWT", "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl", false},
		{"300 characters", strings.Repeat("a", 300), false},
	}
	for _, text := range []string{body, body[:len(body)-1] + "0", "patd", ""} {
		v.Checksums = append(v.Checksums, checksumVector{text, checksum(text)})
	}
	for _, k := range []keyVector{
		{Token: good}, {Token: good, Audience: "reports"}, {Token: good, Audience: "ü", IP: "192.0.2.7"},
		{Token: good, IP: "::ffff:192.0.2.7"}, {Token: good, IP: "2001:DB8:0::1"}, {Token: good, IP: "fe80::1%eth0"},
	} {
		all := binary.BigEndian.AppendUint16(nil, uint16(len(k.Token)))
		k.Everywhere = hex.EncodeToString(append(append(all, k.Token...), k.Audience...))
		if k.IP != "" {
			a := netip.MustParseAddr(k.IP).Unmap().WithZone("").As16()
			k.Address = hex.EncodeToString(a[:])
		}
		v.Keys = append(v.Keys, k)
	}
	for _, decision := range []string{
		"NOT_FOUND", "EXPIRED", "REVOKED", "SUPERSEDED", "USER_SUSPENDED", "AUDIENCE_MISMATCH", "IP_NOT_ALLOWED", "POLICY_BLOCKED", "TOKEN_IDLE",
	} {
		v.Reasons[decision] = refusal.ReasonOf(decision)
	}
	v.Reasons["INSUFFICIENT_SCOPE"] = refusal.ScopesMissing
	return v
}

// TestVectorsAreThoseOfThisPatd computes the vectors anew, and looks at each form with patd's own parser.
func TestVectorsAreThoseOfThisPatd(t *testing.T) {
	t.Parallel()
	want := vectorsOfThisPatd(t)
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(want); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("vectors.json", text.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, text.Bytes()) {
		t.Error("vectors.json is not current; run go test ./sdk/conformance -run Vectors -update")
	}
	for _, f := range want.Forms {
		prefix, _, _ := strings.Cut(f.Text, "_")
		known := secret.Prefixes{}
		if made, err := secret.NewPrefixes(prefix); err == nil && prefix != "" {
			known = made
		}
		kind, _, err := known.Parse(secret.NewSecret(f.Text))
		if is := err == nil && (kind == secret.KindPersonal || kind == secret.KindAccess); is != f.Plausible {
			t.Errorf("%s: %v", f.Why, is)
		}
	}
}
