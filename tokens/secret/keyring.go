package secret

import (
	"bufio"
	"crypto/subtle"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/blake2b"
)

// Hash is a keyed BLAKE2b-256 digest of a whole secret, with the name of its key. It prints as its key's name only.
type Hash struct {
	Key string
	Sum [32]byte
}

// String returns the key's name, without the digest.
func (h Hash) String() string { return "[digest under " + h.Key + "]" }

// Format writes String, for every verb.
func (h Hash) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, h.String()) }

// LogValue returns String.
func (h Hash) LogValue() slog.Value { return slog.StringValue(h.String()) }

// Key is a digest key. The bytes stand behind a pointer so that nothing prints them.
type Key struct {
	Name    string
	bytes   *[32]byte
	hashers *sync.Pool // of *hasher under this key
}

func newKey(name string, bytes *[32]byte) Key {
	begun := begin(bytes)
	return Key{Name: name, bytes: bytes, hashers: &sync.Pool{New: func() any {
		h, _ := blake2b.New256(nil) // it fails for a bad key only
		state, _ := h.(encoding.BinaryUnmarshaler)
		ready := &hasher{Hash: h, state: state, begun: begun}
		ready.start()
		return ready
	}}}
}

// hasher is a reusable hash under one key.
type hasher struct {
	hash.Hash
	state encoding.BinaryUnmarshaler // of Hash
	begun []byte                     // the state before a text
	out   [32]byte
}

// Sum returns the digest of the parts, one after the other, under the key.
func (k Key) Sum(parts ...string) (out [32]byte) {
	h, _ := k.hashers.Get().(*hasher)
	empty := true
	for _, p := range parts {
		empty = empty && p == ""
		_, _ = h.Write(bytesOf(p)) // which does not fail
	}
	if empty {
		return ofNothing(k.bytes)
	}
	h.Sum(h.out[:0])
	out = h.out
	h.out = [32]byte{}
	h.start()
	k.hashers.Put(h)
	return out
}

// start makes the hash ready for a text, and clears what was digested.
func (h *hasher) start() {
	if err := h.state.UnmarshalBinary(h.begun); err != nil {
		panic(err) // it is as the hash has marshaled it
	}
}

// Derive returns a key for another purpose, derived from this one.
func (k Key) Derive(label string) Key {
	sum := k.DeriveBytes(label)
	return newKey(k.Name, &sum)
}

// DeriveBytes returns the bytes of the key that Derive returns, for purposes with their own form of key.
func (k Key) DeriveBytes(label string) [32]byte { return k.Sum("patd derive v1\x00", label) }

var keyNameForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,32}$`)

// Keys is the content of one key file: the digest keys by name, the current one first. It is immutable, except that
// Learn sets the order of the keys in the store.
type Keys struct {
	keys   []Key
	rows   []*rowKey // of keys, in the same order
	sealed int       // see SealedTo
	order  atomic.Pointer[[]KeyRecord]
}

// ParseKeys parses a key file: lines of `keyid:64 hex digits`, the current one first, and SealedLine where the rows of
// the store are sealed. Blank lines and other lines that start with # are skipped. Errors name the line, never its
// content.
func ParseKeys(text string) (*Keys, error) {
	ks := &Keys{}
	sc := bufio.NewScanner(strings.NewReader(text))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			ks.sealed = max(ks.sealed, sealedTo(line))
			continue
		}
		name, digits, ok := strings.Cut(line, ":")
		raw, err := hex.DecodeString(digits)
		if !ok || !keyNameForm.MatchString(name) || err != nil || len(raw) != 32 {
			return nil, fmt.Errorf("hash key, line %d: must be keyid:64 hex digits", n)
		}
		if slices.ContainsFunc(ks.keys, func(k Key) bool { return k.Name == name }) {
			return nil, fmt.Errorf("hash key, line %d: key id %s stands twice", n, name)
		}
		if [32]byte(raw) == [32]byte{} {
			return nil, fmt.Errorf("hash key, line %d: the key is all zeros", n)
		}
		k := newKey(name, (*[32]byte)(raw))
		ks.keys, ks.rows = append(ks.keys, k), append(ks.rows, newRowKey(k))
	}
	if err := sc.Err(); err != nil {
		return nil, errors.New("hash key: a line is too long")
	}
	if len(ks.keys) == 0 {
		return nil, errors.New("hash key: there is none in it")
	}
	return ks, nil
}

// NewKeyLine makes a fresh key and returns its line for the key file.
func NewKeyLine(name string, rand io.Reader) (Secret, error) {
	if !keyNameForm.MatchString(name) {
		return Secret{}, errors.New("a key id must match [A-Za-z0-9._-]{1,32}")
	}
	var raw [32]byte
	if _, err := io.ReadFull(rand, raw[:]); err != nil {
		return Secret{}, fmt.Errorf("make a hash key: %w", err)
	}
	return NewSecret(name + ":" + hex.EncodeToString(raw[:])), nil
}

// Current returns the name of the key for new digests.
func (ks *Keys) Current() string { return ks.keys[0].Name }

// Names lists the key names, the current one first.
func (ks *Keys) Names() []string {
	names := make([]string, len(ks.keys))
	for i, k := range ks.keys {
		names[i] = k.Name
	}
	return names
}

// Check returns the check value of a key: a digest of a constant under it.
func (ks *Keys) Check(name string) ([32]byte, bool) {
	k, ok := ks.find(name)
	if !ok {
		return [32]byte{}, false
	}
	return k.Derive("check").Sum(), true
}

// Verify compares the keys with a store's records of its keys: every key that the store has not retired must be here,
// and be the same. It detects a missing or wrong key at start.
func (ks *Keys) Verify(known []KeyRecord) error {
	for _, r := range known {
		sum, ok := ks.Check(r.Name)
		switch {
		case !ok && r.RetireTime.IsZero():
			return fmt.Errorf(
				"hash key: the store has digests under key %s, which is missing from the key file",
				r.Name,
			)
		case ok && subtle.ConstantTimeCompare(sum[:], r.Check[:]) == 0:
			return fmt.Errorf("hash key: key %s is not the one that this store was written with", r.Name)
		case ok && !r.RetireTime.IsZero() && r.Name == ks.Current():
			return fmt.Errorf("hash key: key %s is retired and cannot be the current one", r.Name)
		}
	}
	return nil
}

func (ks *Keys) find(name string) (Key, bool) {
	for _, k := range ks.keys {
		if k.Name == name {
			return k, true
		}
	}
	return Key{}, false
}

// All lists the keys, the current one first. Callers must not change the list.
func (ks *Keys) All() []Key { return ks.keys }

// Learn sets the store's records of its keys, oldest first.
func (ks *Keys) Learn(known []KeyRecord) { ks.order.Store(&known) }

// Known returns the store's records of its keys, oldest first, or nil if they were not read.
func (ks *Keys) Known() []KeyRecord {
	if order := ks.order.Load(); order != nil {
		return *order
	}
	return nil
}

// Newer reports whether the store has the key as newer than the current one: another server has rotated, and its key
// file is not here yet.
func (ks *Keys) Newer(name string) bool {
	order := ks.Known()
	place := func(name string) int {
		return slices.IndexFunc(order, func(k KeyRecord) bool { return k.Name == name })
	}
	current := place(ks.Current())
	return current >= 0 && place(name) > current
}

// Digest returns the digest of a secret under the current key.
func (ks *Keys) Digest(s Secret) Hash {
	k := ks.keys[0]
	return Hash{Key: k.Name, Sum: k.Sum(s.Reveal())}
}

// errKeyMissing says that a digest's key is not loaded: a fault, which says nothing about the secret.
var errKeyMissing = errors.New("the digest's key is not in the key file")

// Match compares a secret with a digest in constant time. It fails if the digest's key is not loaded, which says
// nothing about the secret.
func (ks *Keys) Match(s Secret, h Hash) (bool, error) {
	k, ok := ks.find(h.Key)
	if !ok {
		return false, errKeyMissing
	}
	sum := k.Sum(s.Reveal())
	return same(&sum, &h.Sum), nil
}

// same compares digests in constant time: it looks at all words of both, and branches on none.
func same(a, b *[32]byte) bool {
	var differences uint64
	for i := 0; i < len(a); i += 8 {
		differences |= binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:])
	}
	return differences == 0
}

// Keyring holds the keys in force. They can be replaced while it is in use, as when the operator has rotated them. The
// zero Keyring is empty and must not be used.
type Keyring struct{ keys atomic.Pointer[Keys] }

// NewKeyring starts with the given keys.
func NewKeyring(ks *Keys) *Keyring {
	r := &Keyring{}
	r.Set(ks)
	return r
}

// Set replaces the keys.
func (r *Keyring) Set(ks *Keys) { r.keys.Store(ks) }

// Get returns the keys in force. One request uses one result throughout.
func (r *Keyring) Get() *Keys { return r.keys.Load() }

// KeyRecord is what a store knows of a digest key: never the key.
type KeyRecord struct {
	Name       string
	Check      [32]byte // a digest of a constant under the key: detects a wrong key at start
	CreateTime time.Time
	RetireTime time.Time // zero: in use
}
