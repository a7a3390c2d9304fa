package secret

import (
	"encoding"
	"encoding/binary"

	"golang.org/x/crypto/blake2b"
)

// The state of a BLAKE2b as it marshals itself: its name, the chain of eight words and the count of bytes of two, all
// of them big-endian, the size of the digest, the block, and how much of the block is filled.
const (
	stateChain = len("b2b")
	stateCount = stateChain + 8*8
	stateBlock = stateCount + 2*8 + 1
	stateFill  = stateBlock + blake2b.BlockSize
	stateSize  = stateFill + 1
)

// begin returns the state of an unkeyed BLAKE2b-256 from which it makes the digests of one under a key, of all texts
// but the empty one. A key is no more than the first block of what is digested, and a byte of the parameters (RFC 7693
// section 2.5 and 3.3): to digest that block once for all saves half of the cost of each token's digest.
func begin(key *[32]byte) []byte {
	h, err := blake2b.New256(nil)
	if err != nil {
		panic(err) // it fails for a bad key only
	}
	state := marshaled(h)
	firstWord := binary.BigEndian.Uint64(state[stateChain:])
	binary.BigEndian.PutUint64(state[stateChain:], firstWord^uint64(len(key))<<8)
	copy(state[stateBlock:], key[:])
	state[stateFill] = blake2b.BlockSize
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil { //nolint:forcetypeassert // documented
		panic(err) // it is as long as it was
	}
	_, _ = h.Write([]byte{0}) // the first byte after a whole block has it digested
	state = marshaled(h)
	clear(state[stateBlock:])
	return state
}

func marshaled(h any) []byte {
	m, _ := h.(encoding.BinaryMarshaler)
	state, err := m.MarshalBinary()
	if err != nil || len(state) != stateSize {
		panic("BLAKE2b marshals itself in another form now")
	}
	return state
}

// ofNothing returns the digest of an empty text under a key, whose block is then the last one.
func ofNothing(key *[32]byte) (out [32]byte) {
	h, err := blake2b.New256(key[:])
	if err != nil {
		panic(err) // a key of 32 bytes is always accepted
	}
	h.Sum(out[:0])
	return out
}
