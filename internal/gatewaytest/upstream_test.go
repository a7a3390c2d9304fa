package gatewaytest

import (
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"sync"
	"testing"
)

// arrival is a request as it reached the upstream.
type arrival struct {
	http.Header
	uri string // as it was written
}

// upstream is the API behind a gateway. It lets everybody in and remembers how they came.
type upstream struct {
	addr string
	mu   sync.Mutex
	came []arrival
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.came = append(u.came, arrival{r.Header.Clone(), r.RequestURI})
		w.Header().Set("X-From", "upstream")
	}))
	t.Cleanup(s.Close)
	u.addr = s.Listener.Addr().String()
	return u
}

// take answers the requests that arrived since it was last asked.
func (u *upstream) take() []arrival {
	u.mu.Lock()
	defer u.mu.Unlock()
	came := u.came
	u.came = nil
	return came
}

// told is the value of a header that arrived, however its name was spelled: many programs take X_Auth_User for the same
// as X-Auth-User. Several values are answered one by one.
func told(h http.Header, name string) []string {
	var values []string
	for got, vs := range h {
		if canonical(got) == canonical(name) {
			values = append(values, vs...)
		}
	}
	return values
}

func canonical(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c == '_' {
			b[i] = '-'
		}
	}
	return textproto.CanonicalMIMEHeaderKey(string(b))
}
