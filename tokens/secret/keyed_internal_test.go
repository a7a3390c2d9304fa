package secret

import (
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/crypto/blake2b"
)

// TestDigestsAreKeyedBLAKE2b compares digests of texts of all lengths, in one part and in several, with those of a hash
// that digests the key each time.
func TestDigestsAreKeyedBLAKE2b(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		var bytes [32]byte
		for i := range bytes {
			bytes[i] = byte(rnd.Uint32())
		}
		k := newKey("k", &bytes)
		for n := range 400 {
			text := make([]byte, n)
			for i := range text {
				text[i] = byte(rnd.Uint32())
			}
			h, err := blake2b.New256(bytes[:])
			if err != nil {
				t.Fatal(err)
			}
			_, _ = h.Write(text)
			want := [32]byte(h.Sum(nil))
			at := rnd.IntN(n + 1)
			if k.Sum(string(text)) != want || k.Sum(string(text[:at]), "", string(text[at:])) != want {
				t.Fatalf("the digest of %d bytes, in parts of %d and %d, is another", n, at, n-at)
			}
		}
		if k.Sum() != k.Sum("") {
			t.Error("the digest of no part is not that of nothing")
		}
	}
}

// TestDigestsDifferInEachBit, so that no part of a digest is left out of a comparison.
func TestDigestsDifferInEachBit(t *testing.T) {
	t.Parallel()
	var a [32]byte
	for bit := range 256 {
		b := a
		if !same(&a, &b) {
			t.Fatal("a digest is not the same as itself")
		}
		b[bit/8] ^= 1 << (bit % 8)
		if same(&a, &b) {
			t.Errorf("digests that differ in bit %d are the same", bit)
		}
	}
}

// TestSecretsAreDigitsOnly puts each byte there is at each place of a secret.
func TestSecretsAreDigitsOnly(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("0", secretLen)
	for at := range secretLen {
		for c := range 256 {
			s := good[:at] + string([]byte{byte(c)}) + good[at+1:]
			want := strings.IndexByte(alphabet, byte(c)) >= 0 && s <= largestSecret
			if isSecret(s) != want {
				t.Errorf("%q at %d: a secret is %v, want %v", byte(c), at, isSecret(s), want)
			}
		}
	}
}
