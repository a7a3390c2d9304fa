package tokens

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"patd/tokens/secret"
)

func TestSealedAnswerYieldsNothingWithoutTheIdempotencyKey(t *testing.T) {
	ks := pageKeys(t, "a:"+strings.Repeat("ab", 32))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const caller, idem = "service:ci", "7e2c5a52-93a1-4f0e-a6b9-0d7b3f2f4d11"
	s, err := newSealer(ks, caller, idem, map[string]string{"a": "b"})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := secret.Mint("pat", 1<<40, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	row, err := s.request(1<<40, secret, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(row.Sealed, []byte(secret.Reveal()[16:40])) {
		t.Fatal("the secret stands in the row")
	}
	if got, err := s.open(row); err != nil || got.Reveal() != secret.Reveal() {
		t.Fatalf("its own caller: %v", err)
	}
	// Everything that the server has: the row and its keys, used as any of the keys that it could be sealed under.
	master := ks.All()[0]
	masterBytes := [32]byte(bytes.Repeat([]byte{0xab}, 32)) // as in the key file
	for name, k := range map[string][32]byte{
		"hash key": masterBytes, "row key": row.Key, "fingerprint": row.Fingerprint,
		"derived seal": master.DeriveBytes("seal"), "derived idempotency": master.DeriveBytes("idempotency"),
		"of the row key": keyOf("patd idempotency seal v1", caller, string(row.Key[:])),
	} {
		thief := &sealer{seal: k, bound: []byte(caller)}
		if _, err := thief.open(row); err == nil {
			t.Errorf("opened with the %s", name)
		}
	}
	for name, other := range map[string][2]string{"another caller": {"service:cj", idem}, "another key": {caller, idem + "x"}, "moved boundary": {caller + "7", idem[1:]}} {
		o, err := newSealer(ks, other[0], other[1], map[string]string{"a": "b"})
		if err != nil {
			t.Fatal(err)
		}
		if o.marks[0].lookup == row.Key {
			t.Errorf("%s finds the row", name)
		}
		if _, err := o.open(row); err == nil {
			t.Errorf("%s opens the row", name)
		}
	}
	moved := row
	moved.TokenID++
	if _, err := s.open(moved); err == nil {
		t.Error("opened as the answer of another token")
	}
	cut := row
	cut.Sealed = cut.Sealed[:10]
	if _, err := s.open(cut); err == nil {
		t.Error("opened a cut row")
	}
}
