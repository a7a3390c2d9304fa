package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Header is the name of the header that carries a signature.
const Header = "Patd-Signature"

// MinKey is the least number of bytes that a key has.
const MinKey = 32

// DefaultTolerance is how far the clocks of sender and receiver may be apart, when Verify gets no tolerance.
const DefaultTolerance = 5 * time.Minute

// maxHeader bounds the length of the header.
const maxHeader = 1024

// The errors of Verify.
var (
	// ErrMalformed reports that the header is not a signature.
	ErrMalformed = errors.New("the signature header is malformed")
	// ErrMismatch reports that no signature in the header matches the body under the key.
	ErrMismatch = errors.New("the signature does not match")
	// ErrTime reports that the signature was made too long ago, or in the future.
	ErrTime = errors.New("the signature's time is out of tolerance")
)

// Sign returns the header's value for a body sent at an instant.
func Sign(key, body []byte, at time.Time) string {
	t := strconv.FormatInt(at.Unix(), 10)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac(key, t, body))
}

// Verify checks a header's value against the body as it was received. A tolerance of 0 is DefaultTolerance. It
// refuses keys shorter than MinKey, with which anybody could sign.
func Verify(key []byte, header string, body []byte, now time.Time, tolerance time.Duration) error {
	if len(key) < MinKey {
		return fmt.Errorf("verify a signature: the key must have at least %d bytes", MinKey)
	}
	t, candidates, err := parse(header)
	if err != nil {
		return err
	}
	at, err := strconv.ParseInt(t, 10, 64)
	if err != nil || at < 0 || strconv.FormatInt(at, 10) != t {
		return ErrMalformed
	}
	want, matched := mac(key, t, body), false
	for _, c := range candidates {
		if hmac.Equal(c, want) {
			matched = true
		}
	}
	if !matched {
		return ErrMismatch
	}
	if tolerance <= 0 {
		tolerance = DefaultTolerance
	}
	if now.Sub(time.Unix(at, 0)).Abs() > tolerance {
		return ErrTime
	}
	return nil
}

// parse splits t=…,v1=…[,v1=…]. Parts with other names are ignored: a later version may add some.
func parse(header string) (t string, candidates [][]byte, err error) {
	if len(header) > maxHeader {
		return "", nil, ErrMalformed
	}
	for part := range strings.SplitSeq(header, ",") {
		name, value, ok := strings.Cut(part, "=")
		switch {
		case !ok || name == "t" && t != "":
			return "", nil, ErrMalformed
		case name == "t":
			t = value
		case name == "v1":
			c, err := hex.DecodeString(value)
			if err != nil {
				return "", nil, ErrMalformed
			}
			candidates = append(candidates, c)
		}
	}
	if t == "" || len(candidates) == 0 {
		return "", nil, ErrMalformed
	}
	return t, candidates, nil
}

func mac(key []byte, t string, body []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(t))
	h.Write([]byte{'.'})
	h.Write(body)
	return h.Sum(nil)
}
