package client

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzBearer holds the reader of the header against what it promises: one header, one scheme, and the token to the
// byte.
func FuzzBearer(f *testing.F) {
	for _, s := range []string{"", "Bearer", "Bearer ", "bearer  x", "Bearer x y", "Basic x", "Bearerx", "Bearer\tx", " Bearer x", "Bearer \x00", "BEARER é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		token, found := bearer([]string{value})
		switch found {
		case bearerToken:
			if len(value) < 6 || !strings.EqualFold(value[:6], "bearer") || !strings.HasSuffix(value, token) ||
				strings.HasPrefix(token, " ") {
				t.Errorf("%q holds the token %q", value, token)
			}
			if between := value[6 : len(value)-len(token)]; strings.Trim(between, " ") != "" ||
				token != "" && between == "" {
				t.Errorf("%q: between scheme and token there is %q", value, between)
			}
		case noCredential:
			if scheme, _, _ := strings.Cut(value, " "); token != "" || strings.EqualFold(scheme, "bearer") {
				t.Errorf("%q holds no token, and %q", value, token)
			}
		default:
			t.Errorf("%q is more than one header", value)
		}
		if token, found := bearer([]string{value, value}); token != "" || found != manyCredentials {
			t.Errorf("two headers hold the token %q", token)
		}
		// Whatever is in the header, a guard that knows no token lets nothing through.
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Authorization"] = []string{value}
		NewGuard(Static(nil), HTTPConfig{}).Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			t.Errorf("%q passes", value)
		})).ServeHTTP(w, r)
		if w.Code != http.StatusUnauthorized {
			t.Errorf("%q: %d", value, w.Code)
		}
	})
}

func TestAddressOfPeer(t *testing.T) {
	for want, a := range map[string]net.Addr{
		"192.0.2.1":    &net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 1},
		"::1":          &net.TCPAddr{IP: net.ParseIP("::1"), Port: 1},
		"fe80::1":      &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 1},
		"invalid IP":   &net.UnixAddr{Name: "@", Net: "unix"},
		"198.51.100.1": &net.UDPAddr{IP: net.ParseIP("198.51.100.1"), Port: 1},
	} {
		if got := addressOfPeer(a).String(); got != want {
			t.Errorf("%v: %s, want %s", a, got, want)
		}
	}
	if addressOfPeer(nil).IsValid() {
		t.Error("nobody has an address")
	}
}
