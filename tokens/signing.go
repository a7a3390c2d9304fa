package tokens

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"patd/tokens/secret"
)

// SigningKey signs access tokens that are JWTs, by ES256. It prints as its id only.
type SigningKey struct {
	// ID is the thumbprint of the public key (RFC 7638), for `kid`.
	ID  string
	Key *ecdsa.PrivateKey
}

// String names the key.
func (k SigningKey) String() string { return "[signing key " + k.ID + "]" }

// Format writes String, for every verb.
func (k SigningKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue returns String.
func (k SigningKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText returns String, so that no encoder writes the key.
func (k SigningKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// DeriveSigningKeys returns the keys for JWTs, the current one first. Each is derived from a digest key, so all servers
// of a store have the same keys without storing any, and rotating the digest keys rotates them.
func DeriveSigningKeys(ks *Keys) []SigningKey {
	out := make([]SigningKey, len(ks.All()))
	for i, k := range ks.All() {
		out[i] = deriveSigningKey(k)
	}
	return out
}

// deriveSigningKey derives a P-256 key. One in 2^32 candidates is no scalar of that curve; then it tries the next one.
func deriveSigningKey(k secret.Key) SigningKey {
	for n := 0; ; n++ {
		raw := k.DeriveBytes("jwt es256 " + strconv.Itoa(n))
		pair, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw[:])
		if err != nil {
			continue
		}
		public, err := pair.PublicKey.Bytes() // 4, x, y
		if err != nil {
			continue
		}
		return SigningKey{ID: thumbprint(public[1:33], public[33:]), Key: pair}
	}
}

// thumbprint returns the thumbprint of a P-256 public key (RFC 7638 section 3).
func thumbprint(x, y []byte) string {
	enc := base64.RawURLEncoding
	sum := sha256.Sum256(
		[]byte(`{"crv":"P-256","kty":"EC","x":"` + enc.EncodeToString(x) + `","y":"` + enc.EncodeToString(y) + `"}`),
	)
	return enc.EncodeToString(sum[:])
}

// DefaultSigningKeyDelay is how long a new signing key is published before it signs.
const DefaultSigningKeyDelay = 10 * time.Minute

// signers caches the signing keys of the digest keys in force, and derives them on first use.
type signers struct{ last atomic.Pointer[derivedKeys] }

type derivedKeys struct {
	from *Keys
	keys []SigningKey
}

func (s *signers) of(ks *Keys) []SigningKey {
	if last := s.last.Load(); last != nil && last.from == ks {
		return last.keys
	}
	derived := &derivedKeys{ks, DeriveSigningKeys(ks)}
	s.last.Store(derived)
	return derived.keys
}

// signer returns the key that signs at an instant: the current one, once the store has known it for delay. Until then
// the next key in the file that is old enough signs. If there is none, as in a new store, the oldest signs. A key that
// the store has retired never signs while there is another.
func (s *signers) signer(ks *Keys, now time.Time, delay time.Duration) SigningKey {
	keys := s.of(ks)
	records := ks.Known()
	if records == nil {
		return keys[0]
	}
	oldest, place := 0, len(records)
	for i, k := range ks.All() {
		at := slices.IndexFunc(records, func(r KeyRecord) bool { return r.Name == k.Name && r.RetireTime.IsZero() })
		switch {
		case at < 0:
		case now.Sub(records[at].CreateTime) >= delay:
			return keys[i]
		case at < place:
			oldest, place = i, at
		}
	}
	return keys[oldest]
}

// SigningKeys returns the keys in force, the current one first. Verifiers accept their signatures.
func (s *Service) SigningKeys() []SigningKey { return slices.Clone(s.signers.of(s.keys.Get())) }

// Signer returns the key that signs now. A new key is published first and signs after Config.SigningKeyDelay, so that
// every verifier has fetched it by then.
func (s *Service) Signer() SigningKey {
	return s.signers.signer(s.keys.Get(), s.Now(), s.signingKeyDelay)
}

// SigningKeysMaxAge is how long a verifier may keep the published keys: half the delay after which a new key signs,
// an hour at most; 0: not at all.
func (s *Service) SigningKeysMaxAge() time.Duration {
	return min(s.signingKeyDelay/2, time.Hour).Truncate(time.Second)
}
