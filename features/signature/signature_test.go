package signature_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"patd/features/signature"
)

func TestVerify(t *testing.T) {
	key := []byte(strings.Repeat("k", 32))
	other := []byte(strings.Repeat("o", 32))
	body := []byte(`{"user":"alice"}`)
	at := time.Unix(1767225600, 0)
	good := signature.Sign(key, body, at)
	// Computed by: printf '1767225600.{"user":"alice"}' | openssl dgst -sha256 -hmac kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk
	const known = "t=1767225600,v1=018f4fbd5fc44b810cb071ed437e61746ef52ef1602175d33113d229f41664fa"
	if good != known {
		t.Errorf("the form changed: %s", good)
	}
	v1 := strings.TrimPrefix(good, "t=1767225600,")
	for _, c := range []struct {
		name, header, body string
		key                []byte
		now                time.Time
		want               error
	}{
		{"good", good, string(body), key, at, nil},
		{"just in time", good, string(body), key, at.Add(5 * time.Minute), nil},
		{"clock behind", good, string(body), key, at.Add(-5 * time.Minute), nil},
		{"one of two keys", good + "," + strings.TrimPrefix(signature.Sign(other, body, at), "t=1767225600,"), string(body), other, at, nil},
		{"unknown part", good + ",v2=x", string(body), key, at, nil},
		{"too late", good, string(body), key, at.Add(5*time.Minute + time.Second), signature.ErrTime},
		{"from the future", good, string(body), key, at.Add(-5*time.Minute - time.Second), signature.ErrTime},
		{"another body", good, `{"user":"alicf"}`, key, at, signature.ErrMismatch},
		{"another key", good, string(body), other, at, signature.ErrMismatch},
		{"another time", "t=1767225601," + v1, string(body), key, at, signature.ErrMismatch},
		{"time spelled otherwise", "t=01767225600," + v1, string(body), key, at, signature.ErrMalformed},
		{"two times", "t=1767225600," + good, string(body), key, at, signature.ErrMalformed},
		{"no time", v1, string(body), key, at, signature.ErrMalformed},
		{"no signature", "t=1767225600", string(body), key, at, signature.ErrMalformed},
		{"not hexadecimal", "t=1767225600,v1=zz", string(body), key, at, signature.ErrMalformed},
		{"cut", good[:len(good)-2], string(body), key, at, signature.ErrMismatch},
		{"empty", "", string(body), key, at, signature.ErrMalformed},
		{"long", good + strings.Repeat(",v1=00", 1000), string(body), key, at, signature.ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := signature.Verify(c.key, c.header, []byte(c.body), c.now, 0); !errors.Is(err, c.want) {
				t.Errorf("got %v; want %v", err, c.want)
			}
		})
	}
	if err := signature.Verify(nil, signature.Sign(nil, body, at), body, at, 0); err == nil {
		t.Error("an empty key verifies")
	}
}

func FuzzVerify(f *testing.F) {
	key := []byte(strings.Repeat("k", 32))
	at := time.Unix(1767225600, 0)
	f.Add(signature.Sign(key, []byte("a"), at), []byte("a"))
	f.Add("t=1,v1=00", []byte{})
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		if signature.Verify(key, header, body, at, 0) != nil {
			return
		}
		// What verifies holds the signature of its own time, which is within the tolerance.
		for d := -signature.DefaultTolerance; d <= signature.DefaultTolerance; d += time.Second {
			digits, v1, _ := strings.Cut(signature.Sign(key, body, at.Add(d)), ",")
			if strings.Contains(header, digits) && strings.Contains(strings.ToLower(header), v1) {
				return
			}
		}
		t.Errorf("%q verifies", header)
	})
}
