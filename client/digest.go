package client

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// key is what an answer is remembered under: a keyed digest of all that the answer rests on.
type key [16]byte

// digester makes keys. Its own key is random and never leaves the process: memory holds no token, and nobody can
// look for two tokens that share a key.
type digester struct{ secret [16]byte }

func newDigester() (digester, error) {
	var d digester
	if _, err := rand.Read(d.secret[:]); err != nil {
		return digester{}, fmt.Errorf("make the key of the memory: %w", err)
	}
	return d, nil
}

// key digests a token with the audience and the address that it was asked about for. Lengths stand before the texts, so
// that no two questions are written the same. It is SHA-256 over the secret and the text, cut to 128 bits: with the
// processor's own instructions it takes half the time of BLAKE2b for texts of this length, and since no digest is ever shown
// there is nothing to extend. The usual question takes no allocation.
func (d *digester) key(token, audience string, ip netip.Addr) key {
	var room [192]byte
	b := append(room[:0], d.secret[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(token))) // checked to be within tokens.MaxInput
	b = append(b, token...)
	if ip.IsValid() {
		a := ip.As16()
		b = append(append(b, 1), a[:]...)
	} else {
		b = append(b, 0)
	}
	b = append(b, audience...)
	sum := sha256.Sum256(b)
	return key(sum[:16])
}
