package tokens_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"patd/tokens"
	"patd/tokens/secret"
)

// example is the secret of the contract: secret bytes 01 02 … 20.
const example = "pat_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0QDLb0"

func counting() []byte {
	b := make([]byte, 32)
	for i := range b {
		b[i] = byte(i + 1)
	}
	return b
}

func TestContractExampleIsMintedAndParsed(t *testing.T) {
	id, err := secret.ParseID("15ODq7pq8Hy")
	if err != nil {
		t.Fatal(err)
	}
	s, err := secret.Mint("pat", id, bytes.NewReader(counting()))
	if err != nil {
		t.Fatal(err)
	}
	if s.Reveal() != example {
		t.Errorf("minted %s, want %s", s.Reveal(), example)
	}
	kind, got, err := tokens.Prefixes{}.Parse(secret.NewSecret(example))
	if err != nil || kind != secret.KindPersonal || got != id {
		t.Errorf("Parse = %v, %v, %v; want personal, %v", kind, got, err, id)
	}
}

func TestIDsSortByAgeAndRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
		ms := rapid.Int64Range(1, 1<<42-2).Draw(t, "ms")
		at := start.Add(time.Duration(ms) * time.Millisecond)
		a, err := secret.NewID(at, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		b, err := secret.NewID(at.Add(time.Millisecond), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if a >= b || a.String() >= b.String() {
			t.Errorf("%v (%s) is not before %v (%s)", a, a.String(), b, b.String())
		}
		if back, err := secret.ParseID(a.String()); err != nil || back != a {
			t.Errorf("ParseID(%s) = %v, %v", a, back, err)
		}
		within := at.Add(time.Duration(rapid.IntRange(0, 999_999).Draw(t, "ns")))
		if first := secret.FirstID(within); first > a || secret.FirstID(within.Add(time.Millisecond)) != first+1<<22 ||
			b < first+1<<22 {
			t.Errorf("the first id at %s is %d, and there is %d, and %d a millisecond later", within, first, a, b)
		}
		if !a.Time().Equal(at) {
			t.Errorf("id made at %s says %s", at, a.Time())
		}
	})
	for _, at := range []time.Time{time.Date(2019, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(2160, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if id, err := secret.NewID(at, rand.Reader); err == nil {
			t.Errorf("NewID(%s) = %v, want an error", at, id)
		}
		if id := secret.FirstID(at); id != 0 && at.Year() < 2020 || id != (1<<42-1)<<22 && at.Year() > 2100 {
			t.Errorf("FirstID(%s) = %d", at, id)
		}
	}
}

func TestParseIDRefusesWhatIsNoID(t *testing.T) {
	for _, s := range []string{"", "0", "00000000000", "15ODq7pq8H", "15ODq7pq8Hyy", "15ODq7pq8H-", "LygHa16AHYG", "zzzzzzzzzzz", example} {
		if id, err := secret.ParseID(s); err == nil {
			t.Errorf("ParseID(%q) = %v, want an error", s, id)
		}
	}
	if id, err := secret.ParseID("LygHa16AHYF"); err != nil || uint64(id) != 1<<64-1 {
		t.Errorf("ParseID of the largest id = %d, %v", id, err)
	}
}

func TestPrefixesDecideTheKind(t *testing.T) {
	p, err := secret.NewPrefixes("acme", "pat", "old1")
	if err != nil {
		t.Fatal(err)
	}
	for prefix, want := range map[string]tokens.Kind{
		"acme": secret.KindPersonal, "pat": secret.KindPersonal, "old1": secret.KindPersonal,
		"pats": secret.KindService, "pata": secret.KindAccess, "patr": secret.KindRefresh, "nope": 0,
	} {
		s, err := secret.Mint(prefix, 1<<40, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, err := p.Parse(s)
		if kind != want || (err == nil) != (want != 0) {
			t.Errorf("prefix %s: kind %v, %v; want %v", prefix, kind, err, want)
		}
	}
	for _, bad := range []string{"p", "Pat", "1pat", "pat_", "pats", "pata", "patr", "abcdefghijklmnopq", "pät"} {
		if _, err := secret.NewPrefixes(bad); err == nil {
			t.Errorf("NewPrefixes(%q) is taken", bad)
		}
	}
}

func TestWhiteSpaceIsNotTrimmed(t *testing.T) {
	for _, s := range []string{" " + example, example + " ", example + "\n", "\t" + example, "Bearer " + example} {
		if _, _, err := (tokens.Prefixes{}).Parse(secret.NewSecret(s)); !errors.Is(err, secret.ErrMalformed) {
			t.Errorf("Parse(%q) = %v", s, err)
		}
	}
}

// base62 is a number in as many digits.
func base62(v *big.Int, digits int) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	b, v, rest, base := make([]byte, digits), new(big.Int).Set(v), new(big.Int), big.NewInt(62)
	for i := range b {
		v.DivMod(v, base, rest)
		b[digits-1-i] = alphabet[rest.Int64()]
	}
	return string(b)
}

// TestASecretIsAnyNumberOf256Bits has secrets with the right checksum, of numbers up to the largest that its characters
// can write.
func TestASecretIsAnyNumberOf256Bits(t *testing.T) {
	end := new(big.Int).Lsh(big.NewInt(1), 256)
	most := new(big.Int).Exp(big.NewInt(62), big.NewInt(43), nil)
	check := func(t interface {
		Helper()
		Errorf(format string, args ...any)
	}, v *big.Int,
	) {
		t.Helper()
		text := "pat_15ODq7pq8Hy_" + base62(v, 43)
		text += base62(new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE([]byte(text)))), 6)
		_, _, err := tokens.Prefixes{}.Parse(secret.NewSecret(text))
		if want := v.Cmp(end) < 0; (err == nil) != want {
			t.Errorf("%s of %d bits: %v, want it taken: %v", text, v.BitLen(), err, want)
		}
	}
	for i := int64(-70); i < 70; i++ {
		check(t, new(big.Int).Add(end, big.NewInt(i)))
	}
	check(t, new(big.Int))
	check(t, new(big.Int).Sub(most, big.NewInt(1)))
	rapid.Check(t, func(t *rapid.T) {
		v := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 33).Draw(t, "number"))
		check(t, v.Mod(v, most))
	})
}

func FuzzParse(f *testing.F) {
	f.Add(example, 0, byte('x'))
	f.Add("pats_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0QDLb0", 7, byte('_'))
	f.Add(strings.Repeat("a", 300), 250, byte(0))
	f.Fuzz(func(t *testing.T, text string, at int, c byte) {
		p := tokens.Prefixes{}
		_, id, err := p.Parse(secret.NewSecret(text))
		if err != nil {
			return
		}
		if !strings.Contains(text, "_"+id.String()+"_") {
			t.Fatalf("id %s is not the one in %s", id, text)
		}
		if !secret.ContainsSecret("before " + text + " after") {
			t.Fatalf("not noticed in free text: %s", text)
		}
		changed := []byte(text)
		if i := ((at % len(text)) + len(text)) % len(text); changed[i] != c {
			changed[i] = c
			if _, _, err := p.Parse(secret.NewSecret(string(changed))); err == nil {
				t.Fatalf("%s and %s are both taken", text, changed)
			}
		}
	})
}

func TestEveryOneCharacterChangeIsRefused(t *testing.T) {
	for i := range len(example) {
		for c := range 256 {
			if byte(c) == example[i] {
				continue
			}
			b := []byte(example)
			b[i] = byte(c)
			if _, _, err := (tokens.Prefixes{}).Parse(secret.NewSecret(string(b))); err == nil {
				t.Fatalf("taken: %q", b)
			}
		}
	}
}

func TestSecretDoesNotPrint(t *testing.T) {
	s := secret.NewSecret(example)
	hidden := struct{ s tokens.Secret }{s}
	type outer struct{ Inner any }
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "s", s, "h", hidden, "p", &s)
	text, err := json.Marshal(map[string]any{"s": s, "o": outer{s}})
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	all.WriteString(log.String() + string(text) + s.String())
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%t", "%p", "%T", "%U", "%c", "%e", "%w"} {
		fmt.Fprintf(&all, verb, s)
		fmt.Fprintf(&all, verb, hidden)
		fmt.Fprintf(&all, verb, []tokens.Secret{s})
		fmt.Fprintf(&all, verb, outer{&hidden})
	}
	for _, leak := range []string{example, example[16:40], fmt.Sprintf("%x", example), fmt.Sprintf("%d", []byte(example))} {
		if strings.Contains(strings.ToLower(all.String()), strings.ToLower(leak)) {
			t.Errorf("printed %q: %s", leak, all.String())
		}
	}
}

func TestDigestDoesNotPrint(t *testing.T) {
	h := testKeys(t).Digest(secret.NewSecret(example))
	out := fmt.Sprintf("%v %+v %#v %x %d %s", h, h, h, h, h, []any{h})
	if strings.Contains(out, fmt.Sprintf("%x", h.Sum[:8])) || strings.Contains(out, fmt.Sprintf("%d", h.Sum[0:4])) {
		t.Errorf("printed: %s", out)
	}
}

func testKeys(t tb) *tokens.Keys {
	t.Helper()
	return parseKeys(t, "k1:"+strings.Repeat("0123456789abcdef", 4))
}

func parseKeys(t tb, text string) *tokens.Keys {
	t.Helper()
	ks, err := secret.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

func TestContainsSecretFindsItAnywhere(t *testing.T) {
	for _, s := range []string{example, "x" + example + "y", "a_b_" + example, strings.Repeat("_", 40) + example, "https://u:" + example + "@h/", "zz9_" + example[:10] + " " + example} {
		if !secret.ContainsSecret(s) {
			t.Errorf("not found in %q", s)
		}
	}
	const jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1MSJ9."
	for _, s := range []string{example[:48], example[:64], strings.Replace(example, "Q4", "Q5", 1), jwt, "see " + jwt + "c2ln"} {
		if !secret.ContainsSecret(s) {
			t.Errorf("cut, misspelt or of another kind, and not found: %q", s)
		}
	}
	for _, s := range []string{"", "_", "pat_", "pat_15ODq7pq8Hy", example[:47], strings.ToUpper(example), strings.Repeat("a_", 200), "eyJhbGciOiJub25lIn0", "1.eyJ.2"} {
		if secret.ContainsSecret(s) {
			t.Errorf("found in %q", s)
		}
		if got := secret.Redact(s); got != s {
			t.Errorf("%q is redacted to %q", s, got)
		}
	}
}

func TestRedactRemovesEverySecretAndNothingElse(t *testing.T) {
	const jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1MSJ9.c2ln"
	for text, want := range map[string]string{
		example:                  "[secret]",
		"see " + example + "!":   "see [secret]!",
		example[:48] + " ":       "[secret] ",
		"x" + example + "y-z":    "[secret]-z",
		jwt + ", " + jwt + "; 1": "[secret], [secret]; 1",
		"https://u:" + example + "@h/?a_b=" + example + "&t=" + jwt: "https://u:[secret]@h/?a_b=[secret]&t=[secret]",
	} {
		got := secret.Redact(text)
		if got != want {
			t.Errorf("%q is redacted to %q, not %q", text, got, want)
		}
		if secret.ContainsSecret(got) {
			t.Errorf("%q holds a secret", got)
		}
	}
}

func TestWhatMayBeAPieceOfAJWTMayBeASecret(t *testing.T) {
	for text, want := range map[string]bool{
		"eyJhbGciOiJub25lIn0.eyJzdWI": true, "ewogImFsZyI6.eyJz": true, "eyAiYWxnIjoibm9uZSJ9.e30": true, example: true,
		"eyJhbGciOiJub25lIn0": false, "key.value": false, "greywethering.example": false, "": false,
	} {
		if got := secret.MayContainSecret(text); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
}
