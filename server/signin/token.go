package signin

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"patd/tokens"
)

// maxToken is how long a token may be.
const maxToken = 16 << 10

// LooksLikeJWT tells whether a credential has the form of a JWS in compact serialization (RFC 7515 section 7.1): three
// parts of base64url between two dots, 16 KiB at most. No secret of patd's does: it holds no dot. The signature may be
// empty, so that an unsigned token is refused as what it is.
func LooksLikeJWT(s string) bool {
	if len(s) > maxToken {
		return false
	}
	dots, last := 0, -1
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '.':
			if dots++; dots > 2 || i == last+1 {
				return false
			}
			last = i
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return dots == 2
}

// token is a JWT taken apart; nothing of it is believed yet.
type token struct {
	signed   *jwt.JSONWebToken
	alg, kid string
	claims   object
}

// signedBy reports whether a key made the signature over the claims that were looked at.
func (t *token) signedBy(key crypto.PublicKey) bool { return t.signed.Claims(key) == nil }

// object is a JSON object by the exact names of its members; encoding/json would take "SUB" for a field named sub.
type object map[string]json.RawMessage

// text reads a member that is a string; false: there is none, or it is something else.
func (o object) text(name string) (string, bool) {
	var s *string
	if err := json.Unmarshal(o[name], &s); err != nil || s == nil {
		return "", false
	}
	return *s, true
}

// parse takes a token apart and refuses headers that patd does not understand. No error of go-jose's is passed on: it
// repeats what stands in the token.
func parse(secret tokens.Secret) (*token, error) {
	text := secret.Reveal()
	if !LooksLikeJWT(text) {
		return nil, errors.New("it is no JWT, or longer than 16 KiB")
	}
	// Each part has one spelling here, so that a token has one. A decoder of JSON would make U+FFFD of what is not UTF-8.
	for i, part := range strings.Split(text, ".") {
		plain, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || len(plain) == 0 || i < 2 && !utf8.Valid(plain) {
			return nil, errors.New("it is not signed, or not base64url of UTF-8 in its one spelling")
		}
	}
	signed, err := jwt.ParseSigned(text, signing())
	if err != nil {
		return nil, errors.New("its header is malformed, or its algorithm is none that a public key can check")
	}
	header := signed.Headers[0]
	t := &token{signed: signed, alg: header.Algorithm, kid: header.KeyID}
	// RFC 7515 section 4.1.11: what is critical and not understood refuses the token. Nothing is understood here.
	for _, name := range []jose.HeaderKey{"crit", "b64"} {
		if _, given := header.ExtraHeaders[name]; given {
			return nil, errors.New("its header asks for an extension of JWS")
		}
	}
	if typ, given := header.ExtraHeaders[jose.HeaderType]; given && !typeAllowed(typ) {
		return nil, errors.New("its type is neither JWT nor at+jwt")
	}
	if err := signed.UnsafeClaimsWithoutVerification(&t.claims); err != nil || t.claims == nil {
		return nil, errors.New("its claims are no JSON object")
	}
	return t, nil
}

// typeAllowed reads `typ`: a media type without regard to case, from which "application/" may be left out (RFC 7515
// section 4.1.9).
func typeAllowed(typ any) bool {
	text, _ := typ.(string)
	switch strings.TrimPrefix(strings.ToLower(text), "application/") {
	case "jwt", "at+jwt":
		return true
	}
	return false
}

// signing lists the algorithms that a public key checks.
func signing() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
}
