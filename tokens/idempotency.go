package tokens

import (
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/chacha20poly1305"

	"patd/tokens/secret"
)

// sealer stores the answer of an idempotent request so that only its caller can get it again. The row is found under a
// keyed hash of caller and idempotency key. The secret in it is sealed under a key derived from the idempotency key,
// which is not stored: neither the row, nor the row and the server's keys together, yield the secret. That holds for
// idempotency keys that are hard to guess, such as a UUIDv4.
type sealer struct {
	marks []mark // under each digest key, the current one first
	seal  [32]byte
	bound []byte // what the sealed secret is bound to
}

// mark finds a stored request and recognizes the same body. Both values are under one of the server's keys, so that a
// copied database alone does not even allow guessing idempotency keys.
type mark struct {
	lookup      RequestKey
	fingerprint [32]byte
}

// idempotencyKey checks an idempotency key; empty: none was given.
func (c *checker) idempotencyKey(k string) {
	if k == "" {
		return
	}
	if len(k) < minRequestID || len(k) > maxRequestID {
		c.add(
			"request_id",
			"IDEMPOTENCY_KEY_INVALID",
			fmt.Sprintf("an idempotency key has %d to %d characters", minRequestID, maxRequestID),
		)
		return
	}
	for i := 0; i < len(k); i++ {
		if k[i] < 0x20 || k[i] > 0x7e {
			c.add("request_id", "IDEMPOTENCY_KEY_INVALID", "an idempotency key is printable ASCII")
			return
		}
	}
}

// sealerFor returns the sealer of a request by a. Without an idempotency key it is nil, which finds and keeps nothing.
func sealerFor(keys *Keys, a Actor, idempotencyKey string, body any) (*sealer, error) {
	if idempotencyKey == "" {
		return nil, nil //nolint:nilnil // a nil sealer is one that keeps nothing
	}
	return newSealer(keys, a.String(), idempotencyKey, body)
}

func newSealer(keys *Keys, caller, idempotencyKey string, body any) (*sealer, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("fingerprint a request: %w", err)
	}
	s := &sealer{
		seal:  keyOf("patd idempotency seal v1", caller, idempotencyKey),
		bound: []byte(caller),
	}
	for _, k := range keys.All() {
		k = k.Derive("idempotency")
		s.marks = append(s.marks, mark{
			lookup:      RequestKey(k.Sum(framed("request", caller, idempotencyKey))),
			fingerprint: k.Sum(framed("body", caller, idempotencyKey, string(text))),
		})
	}
	return s, nil
}

// keyOf hashes framed parts without any of the server's keys.
func keyOf(parts ...string) [32]byte { return blake2b.Sum256([]byte(framed(parts...))) }

// framed joins parts so that no two lists of parts give the same text.
func framed(parts ...string) string {
	var b []byte
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	return string(b)
}

// find returns what is stored of the request; false: nothing.
func (s *sealer) find(tx ReadTx, now time.Time) (Request, bool, error) {
	if s == nil {
		return Request{}, false, nil
	}
	for _, k := range s.marks {
		r, err := tx.Request(k.lookup, now)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return Request{}, false, fmt.Errorf("read request: %w", err)
		}
		if !k.sameBody(r) {
			return Request{}, false, Fail(
				CodeAborted,
				"IDEMPOTENCY_KEY_REUSED",
				"this idempotency key was used for another request; use a fresh one",
			)
		}
		return r, true, nil
	}
	return Request{}, false, nil
}

// keep stores the answer of the request, which made or changed the credential with that id.
func (s *sealer) keep(tx Tx, id ID, secret Secret, now time.Time, rand io.Reader) error {
	if s == nil {
		return nil
	}
	q, err := s.request(id, secret, now, rand)
	if err != nil {
		return err
	}
	if err := tx.PutRequest(q, now); err != nil {
		return fmt.Errorf("keep request: %w", err)
	}
	return nil
}

func (s *sealer) request(id ID, secret Secret, now time.Time, rand io.Reader) (Request, error) {
	aead, err := chacha20poly1305.NewX(s.seal[:])
	if err != nil {
		return Request{}, fmt.Errorf("seal an answer: %w", err)
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(secret.Reveal())+aead.Overhead())
	if _, err := io.ReadFull(rand, nonce); err != nil {
		return Request{}, fmt.Errorf("seal an answer: %w", err)
	}
	return Request{
		Key:         s.marks[0].lookup,
		Fingerprint: s.marks[0].fingerprint,
		TokenID:     id,
		ExpireTime:  now.Add(IdempotencyWindow),
		Sealed:      aead.Seal(nonce, nonce, []byte(secret.Reveal()), s.bind(id)),
	}, nil
}

func (s *sealer) bind(id ID) []byte { return append([]byte(id.String()+" "), s.bound...) }

func (s *sealer) open(r Request) (Secret, error) {
	aead, err := chacha20poly1305.NewX(s.seal[:])
	if err != nil || len(r.Sealed) < aead.NonceSize() {
		return Secret{}, fmt.Errorf("open a sealed answer of token %s: too short", r.TokenID)
	}
	n := aead.NonceSize()
	text, err := aead.Open(nil, r.Sealed[:n], r.Sealed[n:], s.bind(r.TokenID))
	if err != nil {
		return Secret{}, fmt.Errorf("open a sealed answer of token %s: %w", r.TokenID, err)
	}
	return secret.NewSecret(string(text)), nil
}

func (m mark) sameBody(r Request) bool {
	return subtle.ConstantTimeCompare(m.fingerprint[:], r.Fingerprint[:]) == 1
}
