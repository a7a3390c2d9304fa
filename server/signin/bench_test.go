package signin_test

import (
	"testing"

	"patd/tokens/secret"
)

func BenchmarkVerify(b *testing.B) {
	p := newProvider(b, newClock())
	s := signIn(b, p.config())
	for name, jwt := range map[string]string{
		"good":    p.Sign(b, p.good()),
		"expired": p.Sign(b, p.with(claims{"exp": 1})),
	} {
		secret := secret.NewSecret(jwt)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.Verify(b.Context(), secret)
			}
		})
	}
}
