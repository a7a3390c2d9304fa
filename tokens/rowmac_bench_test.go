package tokens

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"strings"
	"testing"

	"golang.org/x/crypto/blake2b"
)

// BenchmarkRowMAC is what a keyed checksum of a token's row would cost: over all that a decision rests on, of a token with
// four scopes, an audience and two labels. See docs/security.md.
func BenchmarkRowMAC(b *testing.B) {
	var key [32]byte
	numbers := []uint64{1 << 40, 77, 3, 1_800_000_000_000_000, 1_830_000_000_000_000, 1<<63 - 1}
	texts := []string{
		strings.Repeat("d", 32), "ci-deploy", "reports.read reports.write billing.read users.read", "https://api.example",
		"10.0.0.0/8", `{"team":"platform","env":"production"}`, "",
	}
	row := make([]byte, 0, 512)
	fill := func() []byte {
		row = row[:0]
		for _, n := range numbers {
			row = binary.LittleEndian.AppendUint64(row, n)
		}
		for _, t := range texts {
			row = append(binary.AppendUvarint(row, uint64(len(t))), t...)
		}
		return row
	}
	blake, err := blake2b.New(16, key[:])
	if err != nil {
		b.Fatal(err)
	}
	for name, h := range map[string]hash.Hash{"HMAC-SHA-256": hmac.New(sha256.New, key[:]), "BLAKE2b-128": blake} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var sum [32]byte
			for b.Loop() {
				h.Reset()
				h.Write(fill())
				h.Sum(sum[:0])
			}
		})
	}
}
