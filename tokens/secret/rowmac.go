package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A row checksum is the name of its key, after a byte with its length, then a random nonce and the tag of AES-256-GMAC
// (NIST SP 800-38D) over the row: a third of what HMAC-SHA-256 costs, where a lookup makes two. Its key is derived from
// the digest key of that name. Under one key 2^32 checksums may be made; nonces of 96 bits collide with a probability
// of 2^-33 then.
const (
	rowTagSize = 12 + 16
	rowLabel   = "row checksum"
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
	name string
	aead cipher.AEAD // it chooses nonces, and puts them first
}

func newRowKey(k Key) *rowKey {
	derived := k.DeriveBytes(rowLabel)
	block, err := aes.NewCipher(derived[:])
	if err != nil {
		panic(err) // a key of 32 bytes is always accepted
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // as is a block of AES
	}
	return &rowKey{name: k.Name, aead: aead}
}

// RowsSealed reports whether the key file says that every row of the store has a checksum.
func (ks *Keys) RowsSealed() bool { return ks.sealed >= SealedAll }

// SealedTo returns the last migration of those that gave checksums to tables whose rows all have one, as the key file
// says; 0: none.
func (ks *Keys) SealedTo() int { return ks.sealed }

// RowChecksum returns the checksum of a row under the current key.
func (ks *Keys) RowChecksum(row []byte) []byte {
	k := ks.rows[0]
	b := append(append(make([]byte, 0, 1+len(k.name)+rowTagSize), byte(len(k.name))), k.name...)
	return k.aead.Seal(b, nil, nil, row) //nolint:gosec // it makes its own nonce, and takes none
}

// CheckRow compares a row with its checksum, in constant time. It returns ErrRowChanged or ErrRowKeyMissing, bare or
// wrapped.
func (ks *Keys) CheckRow(row, checksum []byte) error {
	name, tag, ok := cutChecksum(checksum)
	if !ok {
		return ErrRowChanged
	}
	for _, k := range ks.rows {
		if k.name == string(name) {
			if _, err := k.aead.Open(nil, nil, tag, row); err != nil {
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

// RowKeyPrefix returns how checksums under the key of a name begin.
func RowKeyPrefix(name string) []byte { return append([]byte{byte(len(name))}, name...) }

// CutChecksum cuts the first of two checksums off; what is not two comes back whole.
func CutChecksum(b []byte) (first, second []byte) {
	if len(b) > 0 {
		if n := 1 + int(b[0]) + rowTagSize; n < len(b) {
			return b[:n], b[n:]
		}
	}
	return b, nil
}

func cutChecksum(b []byte) (name, tag []byte, ok bool) {
	if len(b) < 1 || len(b) != 1+int(b[0])+rowTagSize {
		return nil, nil, false
	}
	n := 1 + int(b[0])
	return b[1:n], b[n:], true
}
