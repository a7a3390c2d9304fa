package bearer_test

import (
	"testing"

	"patd/internal/bearer"
)

func TestTokenFollowsOneOrMoreSpaces(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header, token string
		ok            bool
	}{
		{"Bearer x", "x", true}, {"bearer   x", "x", true}, {"BEARER x y", "x y", true}, {"Bearer", "", true}, {"Bearer  ", "", true},
		{"Bearer\tx", "", false}, {"Bearer \tx", "\tx", true}, {" Bearer x", "", false}, {"Basic x", "", false}, {"", "", false},
		{"Bearerx", "", false},
	} {
		if token, ok := bearer.Token(c.header); token != c.token || ok != c.ok {
			t.Errorf("%q: %q, %t; want %q, %t", c.header, token, ok, c.token, c.ok)
		}
	}
	if scheme, text := bearer.Split("Basic  eDp5"); scheme != "Basic" || text != "eDp5" {
		t.Errorf("Basic with two spaces: %q, %q", scheme, text)
	}
}
