package client

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// key is the cache key of an answer: a keyed digest of all that the answer depends on.
type key [16]byte

// keys are the keys of one request. An answer is kept under the first only if patd reports that it holds for every
// address. An answer under the second is good for one address, or for a client whose address is not known.
type keys struct{ everywhere, here key }

// digester makes keys. Its own key is random and never leaves the process: the cache holds no token, and an attacker
// cannot search for two tokens that share a key.
type digester struct {
	secret    [16]byte
	addresses [16]byte // another secret, for at
}

func newDigester() (digester, error) {
	var d digester
	for _, secret := range [][]byte{d.secret[:], d.addresses[:]} {
		if _, err := rand.Read(secret); err != nil {
			return digester{}, fmt.Errorf("make the key of the memory: %w", err)
		}
	}
	return d, nil
}

// key digests a token with the audience of the request. The length stands before the token, so that no two requests
// have the same encoding. It is SHA-256 over the secret and the text, cut to 128 bits: with the processor's own
// instructions it takes half the time of BLAKE2b for texts of this length. No digest is ever shown, so length extension
// is no danger. The usual request takes no allocation.
func (d *digester) key(token, audience string) key {
	var room [192]byte
	b := append(room[:0], d.secret[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(token))) // checked to be within secret.MaxInput
	b = append(b, token...)
	b = append(b, audience...)
	sum := sha256.Sum256(b)
	return key(sum[:16])
}

// at digests a key with the address that the token was presented from. It is one block of SHA-256 with a secret of its
// own, so that no token and audience can be chosen to produce the same key.
func (d *digester) at(k key, ip netip.Addr) key {
	var room [64]byte
	b := append(room[:0], d.addresses[:]...)
	b = append(b, k[:]...)
	if ip.IsValid() {
		a := ip.As16()
		b = append(b, a[:]...)
	}
	sum := sha256.Sum256(b)
	return key(sum[:16])
}
