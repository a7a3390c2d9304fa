package call

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"
)

const requestIDChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

// RequestID returns the id under which a request is logged: the client's own if it is up to 64 characters of
// [A-Za-z0-9._-] (never a secret: patd's secrets have underscores), or else a new one. It may be easy to guess.
func RequestID(given string) string {
	if given != "" && len(given) <= 64 && strings.Trim(given, requestIDChars) == "" {
		return given
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], rand.Uint64())
	return hex.EncodeToString(b[:])
}
