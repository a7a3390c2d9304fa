package secret

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/bits"
	"regexp"
	"slices"
	"time"
	"unsafe"
)

const (
	alphabet    = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	idLen       = 11 // 62^11 > 2^64
	secretLen   = 43 // 62^43 > 2^256
	checksumLen = 6  // 62^6 > 2^32
	tailLen     = 1 + idLen + 1 + secretLen + checksumLen

	// IDLen is the length of a token id as text.
	IDLen = idLen

	// MaxInput is the longest text, in bytes, that is parsed as a token.
	MaxInput = 256
)

// epoch is the zero time of token ids: 42 bits of milliseconds from here last until 2159.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// ID is the public id of a token: 42 bits of milliseconds since 2020-01-01T00:00:00Z and 22 random bits. Ids sort
// by age. Zero is no id.
type ID uint64

// NewID returns an id for a token minted at now. It fails when rand does, or outside the years that 42 bits hold.
func NewID(now time.Time, rand io.Reader) (ID, error) {
	ms := now.Sub(epoch).Milliseconds()
	if ms < 0 || ms >= 1<<42 {
		return 0, fmt.Errorf(
			"make token id: the clock says %s, which is outside 2020 to 2159",
			now.Format(time.RFC3339),
		)
	}
	var b [4]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return 0, fmt.Errorf("make token id: %w", err)
	}
	return ID(uint64(ms)<<22 | uint64(binary.BigEndian.Uint32(b[:])&(1<<22-1))), nil
}

// FirstID returns the smallest id that NewID returns in the millisecond of t, or the nearest one that has this form.
func FirstID(t time.Time) ID {
	return ID(min(max(t.Sub(epoch).Milliseconds(), 0), 1<<42-1) << 22)
}

// ParseID parses the 11 base62 characters of an id.
func ParseID(s string) (ID, error) {
	if len(s) != idLen {
		return 0, errors.New("a token id is 11 base62 characters")
	}
	w, ok := decodeWord62(s)
	if !ok || w == 0 {
		return 0, errors.New("a token id is 11 base62 characters")
	}
	return ID(w), nil
}

// String returns the 11 base62 characters of the id.
func (id ID) String() string {
	var b [idLen]byte
	encodeWord62(b[:], uint64(id))
	return string(b[:])
}

// Append appends String to b.
func (id ID) Append(b []byte) []byte {
	var text [idLen]byte
	encodeWord62(text[:], uint64(id))
	return append(b, text[:]...)
}

// Time returns when the id was made, to the millisecond.
func (id ID) Time() time.Time { return epoch.Add(time.Duration(id>>22) * time.Millisecond) }

// Kind is what sort of credential a secret is.
type Kind int

// The kinds of secret.
const (
	KindPersonal Kind = iota + 1
	KindService
	KindAccess
	KindRefresh
)

// The default prefixes. Only the personal one can be configured.
const (
	PrefixPersonal = "pat"
	PrefixService  = "pats"
	PrefixAccess   = "pata"
	PrefixRefresh  = "patr"
)

var prefixForm = regexp.MustCompile(`^[a-z][a-z0-9]{1,15}$`)

// Prefixes maps prefixes to kinds. The first personal prefix is for minting; the others are earlier ones, whose secrets
// stay valid.
type Prefixes struct{ personal []string }

// NewPrefixes takes the current personal prefix (empty: pat) and the earlier ones.
func NewPrefixes(current string, earlier ...string) (Prefixes, error) {
	if current == "" {
		current = PrefixPersonal
	}
	p := Prefixes{}
	for _, s := range append([]string{current}, earlier...) {
		switch {
		case !prefixForm.MatchString(s):
			return Prefixes{}, fmt.Errorf("personal prefix %q: must match [a-z][a-z0-9]{1,15}", s)
		case s == PrefixService || s == PrefixAccess || s == PrefixRefresh:
			return Prefixes{}, fmt.Errorf("personal prefix %q: taken by another kind of token", s)
		case !slices.Contains(p.personal, s):
			p.personal = append(p.personal, s)
		}
	}
	return p, nil
}

// Current returns the prefix to mint personal access tokens under.
func (p Prefixes) Current() string {
	if len(p.personal) == 0 {
		return PrefixPersonal
	}
	return p.personal[0]
}

func (p Prefixes) kind(prefix string) (Kind, bool) {
	switch prefix {
	case PrefixService:
		return KindService, true
	case PrefixAccess:
		return KindAccess, true
	case PrefixRefresh:
		return KindRefresh, true
	}
	if slices.Contains(p.personal, prefix) || len(p.personal) == 0 && prefix == PrefixPersonal {
		return KindPersonal, true
	}
	return 0, false
}

// ErrMalformed says that a text is no token: its form or its checksum is wrong, or its prefix is unknown.
var ErrMalformed = errors.New("not a token")

// Parse returns the kind and the id of a secret. It checks only the text: checksum, form and prefix. Anything that was
// not minted in this form is ErrMalformed, so that any one-character change is rejected without a read of the store.
func (p Prefixes) Parse(s Secret) (Kind, ID, error) {
	text := s.Reveal()
	prefix, id, ok := split(text)
	if !ok {
		return 0, 0, ErrMalformed
	}
	kind, ok := p.kind(prefix)
	if !ok {
		return 0, 0, ErrMalformed
	}
	return kind, id, nil
}

// split checks form and checksum of a whole text, whatever its prefix.
func split(text string) (prefix string, id ID, ok bool) {
	if len(text) > MaxInput || len(text) < tailLen+2 || len(text) > tailLen+16 {
		return "", 0, false
	}
	prefix, rest := text[:len(text)-tailLen], text[len(text)-tailLen:]
	if rest[0] != '_' || rest[1+idLen] != '_' || !wellFormedPrefix(prefix) {
		return "", 0, false
	}
	var sum [checksumLen]byte
	encodeWord62(sum[:], uint64(checksum(text[:len(text)-checksumLen])))
	if string(sum[:]) != text[len(text)-checksumLen:] {
		return "", 0, false
	}
	w, ok := decodeWord62(rest[1 : 1+idLen])
	if !ok || w == 0 {
		return "", 0, false
	}
	if !isSecret(rest[2+idLen : 2+idLen+secretLen]) {
		return "", 0, false
	}
	return prefix, ID(w), true
}

func wellFormedPrefix(s string) bool {
	if len(s) < 2 || len(s) > 16 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// Mint makes a secret for an id: 256 bits of rand, in the fixed form.
func Mint(prefix string, id ID, rand io.Reader) (Secret, error) {
	var raw [32]byte
	if _, err := io.ReadFull(rand, raw[:]); err != nil {
		return Secret{}, fmt.Errorf("mint a secret: %w", err)
	}
	return assemble(prefix, id, raw), nil
}

func assemble(prefix string, id ID, raw [32]byte) Secret {
	w := make([]uint64, 4)
	for i := range w {
		w[i] = binary.BigEndian.Uint64(raw[8*i:])
	}
	b := make([]byte, 0, len(prefix)+tailLen)
	b = append(b, prefix...)
	b = append(b, '_')
	b = append(b, id.String()...)
	b = append(b, '_')
	b = b[:len(b)+secretLen]
	encode62(b[len(b)-secretLen:], w)
	n := len(b)
	b = b[:n+checksumLen]
	encodeWord62(b[n:], uint64(checksum(string(b[:n]))))
	return NewSecret(string(b))
}

// checksum returns the CRC-32 (IEEE) of a text.
func checksum(text string) uint32 { return crc32.ChecksumIEEE(bytesOf(text)) }

// bytesOf returns the bytes of a text, for functions that take no string and neither keep nor change them: checking a
// token leaves no copies of it.
func bytesOf(text string) []byte {
	return unsafe.Slice(unsafe.StringData(text), len(text)) //nolint:gosec // see above
}

// encode62 writes the big-endian number w into dst, most significant digit first, padded with 0. It destroys w.
func encode62(dst []byte, w []uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		var rem uint64
		for j := range w {
			w[j], rem = bits.Div64(rem, w[j], 62)
		}
		dst[i] = alphabet[rem]
	}
}

// encodeWord62 is encode62 of one word.
func encodeWord62(dst []byte, w uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = alphabet[w%62]
		w /= 62
	}
}

// decodeWord62 returns the number that an id's digits are. It returns false for a foreign character, or a number that
// is too large for a word.
func decodeWord62(s string) (w uint64, ok bool) {
	last := len(s) - 1 // ten digits always fit
	for i := range last {
		d := digits[s[i]]
		if d >= 62 {
			return 0, false
		}
		w = w*62 + uint64(d)
	}
	d := digits[s[last]]
	hi, lo := bits.Mul64(w, 62)
	w, carry := bits.Add64(lo, uint64(d), 0)
	return w, d < 62 && hi == 0 && carry == 0
}

// isSecret reports whether secretLen characters are a number of 256 bits, without decoding it: digits sort by value.
func isSecret(s string) bool {
	b := bytesOf(s)
	others := notDigits(binary.LittleEndian.Uint64(b[secretLen-8:])) // the last eight overlap those before
	for ; len(b) >= 8; b = b[8:] {
		others |= notDigits(binary.LittleEndian.Uint64(b))
	}
	return others == 0 && s <= largestSecret
}

// notDigits looks at eight characters at once. It returns 0 if all of them are digits of the alphabet.
func notDigits(eight uint64) uint64 {
	const each, high = 0x0101010101010101, 0x8080808080808080
	folded := eight | 0x20*each // capitals become small letters, and nothing else does
	number := (eight + (0x80-'0')*each) &^ (eight + (0x80-'9'-1)*each)
	letter := (folded + (0x80-'a')*each) &^ (folded + (0x80-'z'-1)*each)
	return (eight | ^(number | letter)) & high // sums of characters above 127 run over, but those count by themselves
}

var largestSecret = func() string {
	var b [secretLen]byte
	encode62(b[:], []uint64{math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64})
	return string(b[:])
}()

// digits is the value of each character; 62 and more: not a digit.
var digits = func() (table [256]uint8) {
	for i := range table {
		table[i] = 0xff
	}
	for i := range len(alphabet) {
		table[alphabet[i]] = uint8(i)
	}
	return table
}()
