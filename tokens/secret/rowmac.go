package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/subtle"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A row checksum begins with a byte and the name of its key; the byte is the length of the name. What follows has one of
// two forms, under keys that are derived from the digest key of that name:
//
//   - Short, where the highest bit of the byte is set: 96 bits of a tag that is made as that of AES-GCM-SIV (RFC 8452)
//     under one nonce: AES-256 encrypts a keyed hash of the row, GHASH (NIST SP 800-38D), which nobody gets to see. Two
//     of 2^32 rows of 500 bytes have one hash with a probability of 2^-60. A guess at a tag can only be tried by
//     writing it into a row and asking patd, so that 2^96 of them are out of reach.
//   - Long: a random nonce and the tag of AES-256-GMAC (NIST SP 800-38D) over the row. Under one key 2^32 checksums may
//     be made; nonces of 96 bits collide with a probability of 2^-33 then. Programs from before the short form know only
//     this one.
//
// To check a row of 240 bytes takes 0.16 and 0.12 µs, where HMAC-SHA-256 takes 0.36 and keyed BLAKE2b 0.40; a lookup
// checks two.
const (
	shortTagSize = 12
	longTagSize  = 12 + 16
	shortForm    = 0x80 // above the length of any name
	hashLabel    = "row checksum, hash"
	shortLabel   = "row checksum, short"
	longLabel    = "row checksum"
)

// sealedLine begins the line of a key file that says that the rows of the store have checksums. A number says those of
// which tables: those that have checksums by that migration; without one, those of SealedFirst. Programs from before
// checksums skip it, and then say that the store needs a newer one.
const sealedLine = "# rows sealed"

// The migrations that gave checksums to the rows of tables: the first, and the last so far.
const (
	SealedFirst = 14
	SealedAll   = 23
)

// SealedLine returns the line of a key file that says that every row of its store has a checksum, so that one without
// is not accepted. Write access to the database is not enough to take it back.
func SealedLine() string { return fmt.Sprintf("%s %d", sealedLine, SealedAll) }

// sealedTo reads a line of a key file as SealedLine writes it, or wrote it before; 0: it is another one.
func sealedTo(line string) int {
	number, ok := strings.CutPrefix(line, sealedLine)
	if !ok {
		return 0
	}
	if number == "" {
		return SealedFirst
	}
	digits, ok := strings.CutPrefix(number, " ")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil {
		return 0
	}
	return max(n, 0)
}

// ErrRowChanged says that a row is not as patd wrote it.
var ErrRowChanged = errors.New("its checksum is not that of its contents: it was changed by other means than patd")

// ErrRowKeyMissing says that the key of a row's checksum is not loaded: a fault, which says nothing about the row.
var ErrRowKeyMissing = errors.New("the key of its checksum is not in the key file")

// rowKey makes checksums under one key.
type rowKey struct {
	name  string
	hash  cipher.AEAD  // of the short form: its tag is the hash, and a pad that is always the same
	short cipher.Block // encrypts that
	long  cipher.AEAD  // it chooses nonces, and puts them first
}

func newRowKey(k Key) *rowKey {
	var hash cipher.AEAD
	var err error
	// As a cipher it would need another nonce each time, which GODEBUG=fips140=only demands. As a hash it needs none.
	fips140.WithoutEnforcement(func() { hash, err = cipher.NewGCM(blockOf(k, hashLabel)) })
	if err != nil {
		panic(err) // a block of AES is always accepted
	}
	long, err := cipher.NewGCMWithRandomNonce(blockOf(k, longLabel))
	if err != nil {
		panic(err) // as here
	}
	return &rowKey{name: k.Name, hash: hash, short: blockOf(k, shortLabel), long: long}
}

func blockOf(k Key, label string) cipher.Block {
	derived := k.DeriveBytes(label)
	block, err := aes.NewCipher(derived[:])
	if err != nil {
		panic(err) // a key of 32 bytes is always accepted
	}
	return block
}

// oneNonce is that of all short forms.
var oneNonce = make([]byte, 12)

// shortTag returns a tag of which the short form has a part.
func (k *rowKey) shortTag(row []byte) []byte {
	tag := k.hash.Seal(make([]byte, 0, aes.BlockSize), oneNonce, nil, row) //nolint:gosec // G407: see shortTagSize
	k.short.Encrypt(tag, tag)
	return tag
}

// RowsSealed reports whether the key file says that every row of the store has a checksum.
func (ks *Keys) RowsSealed() bool { return ks.sealed >= SealedAll }

// SealedTo returns the last migration of those that gave checksums to tables whose rows all have one, as the key file
// says; 0: none.
func (ks *Keys) SealedTo() int { return ks.sealed }

// RowChecksum returns the checksum of a row under the current key, in the short form or in the long one.
func (ks *Keys) RowChecksum(row []byte, short bool) []byte {
	k := ks.rows[0]
	b := append(append(make([]byte, 0, 1+len(k.name)+longTagSize), byte(len(k.name))), k.name...)
	if short {
		b[0] |= shortForm
		return append(b, k.shortTag(row)[:shortTagSize]...)
	}
	return k.long.Seal(b, nil, nil, row) //nolint:gosec // it makes its own nonce, and takes none
}

// CheckRow compares a row with its checksum, in constant time. It returns ErrRowChanged or ErrRowKeyMissing, bare or
// wrapped.
func (ks *Keys) CheckRow(row, checksum []byte) error {
	name, tag, ok := cutChecksum(checksum)
	if !ok || len(name)+1+len(tag) != len(checksum) {
		return ErrRowChanged
	}
	for _, k := range ks.rows {
		if k.name == string(name) {
			if !k.matches(row, tag) {
				return ErrRowChanged
			}
			return nil
		}
	}
	if !keyNameForm.Match(name) {
		return ErrRowChanged
	}
	return fmt.Errorf("key %s: %w", name, ErrRowKeyMissing)
}

func (k *rowKey) matches(row, tag []byte) bool {
	if len(tag) == shortTagSize {
		return subtle.ConstantTimeCompare(k.shortTag(row)[:shortTagSize], tag) == 1
	}
	_, err := k.long.Open(nil, nil, tag, row)
	return err == nil
}

// RowKeyPrefixes returns how checksums under the key of a name begin: those of either form.
func RowKeyPrefixes(name string) (short, long []byte) {
	return append([]byte{shortForm | byte(len(name))}, name...), append([]byte{byte(len(name))}, name...)
}

// CutChecksum cuts the first of two checksums off; what is not two comes back whole.
func CutChecksum(b []byte) (first, second []byte) {
	if name, tag, ok := cutChecksum(b); ok {
		n := 1 + len(name) + len(tag)
		return b[:n:n], b[n:]
	}
	return b, nil
}

// cutChecksum returns the parts of the checksum that b begins with; false: there is none.
func cutChecksum(b []byte) (name, tag []byte, ok bool) {
	if len(b) == 0 {
		return nil, nil, false
	}
	n, size := 1+int(b[0]&^shortForm), longTagSize
	if b[0]&shortForm != 0 {
		size = shortTagSize
	}
	if len(b) < n+size {
		return nil, nil, false
	}
	return b[1:n], b[n : n+size], true
}
