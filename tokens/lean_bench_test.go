package tokens_test

import (
	"crypto/rand"
	"testing"

	"patd/tokens"
	"patd/tokens/secret"
)

func BenchmarkParse(b *testing.B) {
	s, err := secret.Mint("pat", 12345<<22, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	p, _ := secret.NewPrefixes("pat")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := p.Parse(s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	s, err := secret.Mint("pat", 12345<<22, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	ks, err := secret.ParseKeys("k1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	if err != nil {
		b.Fatal(err)
	}
	h := ks.Digest(s)
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := ks.Match(s, h); err != nil || !ok {
			b.Fatal(err)
		}
	}
}

func BenchmarkIDString(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = tokens.ID(12345 << 22).String()
	}
}
