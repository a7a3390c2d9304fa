package rival

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"patd/internal/longtest"
)

// TestEachJWTIsVerified holds that a JWT that must not pass is noticed, whatever verifies it.
func TestEachJWTIsVerified(t *testing.T) {
	longtest.Slow(t)
	for _, a := range jwtAlgorithms() {
		key, public, err := a.keys()
		if err != nil {
			t.Fatal(err)
		}
		other, _, err := a.keys()
		if err != nil {
			t.Fatal(err)
		}
		soon := time.Now().Add(time.Hour)
		good, err := signJWT(a.name, key, 1, soon)
		if err != nil {
			t.Fatal(err)
		}
		expired, err := signJWT(a.name, key, 1, time.Now().Add(-time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		forged, err := signJWT(a.name, other, 1, soon)
		if err != nil {
			t.Fatal(err)
		}
		claims, _, _ := strings.Cut(good.Text[strings.IndexByte(good.Text, '.')+1:], ".")
		parts := strings.Split(forged.Text, ".")
		swapped := JWT{strings.Join([]string{parts[0], claims, parts[2]}, "."), good.Subject}
		for library, verify := range map[string]verifier{
			"go-jose": goJose(a.name, public), "golang-jwt": golangJWT(a.name, public),
		} {
			for _, c := range []struct {
				name string
				jwt  JWT
				pass bool
			}{
				{"good", good, true},
				{"expired", expired, false},
				{"signed by another key", forged, false},
				{"with the signature of another key", swapped, false},
				{"of somebody else", JWT{good.Text, "user-0000009"}, false},
			} {
				n, err := verifyCall([]JWT{c.jwt}, verify)(t.Context(), 0, rand.New(rand.NewPCG(1, 1)))
				if (err == nil) != c.pass {
					t.Errorf("%s by %s: a JWT that is %s: %v", a.name, library, c.name, err)
				}
				if c.pass && n != jwtsACall {
					t.Errorf("%s by %s: %d verified", a.name, library, n)
				}
			}
		}
	}
}

func TestJWTsNeedTheScope(t *testing.T) {
	if err := mayPass("reports.readonly xreports.read"); err == nil {
		t.Error("another scope passes")
	}
	if err := mayPass("billing.read reports.read"); err != nil {
		t.Error(err)
	}
}
