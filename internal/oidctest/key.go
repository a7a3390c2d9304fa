package oidctest

import (
	"crypto"
	"encoding/json"
	"fmt"
	"maps"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// Claims are those of a token, or the fields of its header.
type Claims map[string]any

// With returns the claims with others changed or added. Those that are changed to nil are left out.
func (c Claims) With(changed Claims) Claims {
	c = maps.Clone(c)
	maps.Copy(c, changed)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// Key is a key that signs.
type Key struct {
	ID        string
	Algorithm jose.SignatureAlgorithm
	Private   crypto.Signer
}

// Public is what a provider publishes of the key.
func (k Key) Public() jose.JSONWebKey {
	return PublicKey(k.ID, k.Private.Public(), string(k.Algorithm))
}

// PublicKey is a key for signatures, as a provider publishes it.
func PublicKey(id string, key any, algorithm string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key, KeyID: id, Algorithm: algorithm, Use: "sig"}
}

// Sign signs claims, or a text as it stands, under a header to which the algorithm is added.
func (k Key) Sign(tb testing.TB, header Claims, payload any) string {
	tb.Helper()
	return Sign(tb, k.Algorithm, k.Private, header, payload)
}

// Sign is [Key.Sign] with a key of any kind, also one that is shared.
func Sign(tb testing.TB, algorithm jose.SignatureAlgorithm, key any, header Claims, payload any) string {
	tb.Helper()
	jwt, err := signed(algorithm, key, header, payload)
	if err != nil {
		tb.Fatal(err)
	}
	return jwt
}

func signed(algorithm jose.SignatureAlgorithm, key any, header Claims, payload any) (string, error) {
	options := &jose.SignerOptions{}
	for k, v := range header {
		options.WithHeader(jose.HeaderKey(k), v)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	if err != nil {
		return "", fmt.Errorf("make a signer: %w", err)
	}
	text, ok := payload.(string)
	if !ok {
		b, err := json.Marshal(payload)
		if err != nil {
			return "", fmt.Errorf("encode the claims: %w", err)
		}
		text = string(b)
	}
	object, err := s.Sign([]byte(text))
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return object.CompactSerialize()
}
