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

// maxToken is the maximum length of a token, in bytes.
const maxToken = 16 << 10

// LooksLikeJWT reports whether a credential has the form of a JWS in compact serialization (RFC 7515 section 7.1):
// three parts of base64url between two dots, 16 KiB at most. patd's own secrets hold no dot, so none matches. The
// signature may be empty, so that an unsigned token is rejected as a JWT.
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

// token is a parsed JWT. Nothing in it is verified yet.
type token struct {
	signed   *jwt.JSONWebToken
	alg, kid string
	claims   object
}

// signedBy reports whether a key signed the claims that were checked.
func (t *token) signedBy(key crypto.PublicKey) bool { return t.signed.Claims(key) == nil }

// object is a JSON object by the exact names of its members; encoding/json would take "SUB" for a field named sub.
type object map[string]json.RawMessage

// text reads a string member; false if it is absent or not a string.
func (o object) text(name string) (string, bool) {
	var s *string
	if err := json.Unmarshal(o[name], &s); err != nil || s == nil {
		return "", false
	}
	return *s, true
}

// parse parses a token and rejects headers that patd does not understand. It passes on no error of go-jose, since those
// repeat parts of the token.
func parse(secret tokens.Secret) (*token, error) {
	t, typ, given, err := parseAny(secret)
	if err == nil && given && !typeAllowed(typ) {
		return nil, errors.New("its type is neither JWT nor at+jwt")
	}
	return t, err
}

// parseAny is parse for a token of any type, which it returns if the header gives one.
func parseAny(secret tokens.Secret) (t *token, typ any, given bool, err error) {
	text := secret.Reveal()
	if !LooksLikeJWT(text) {
		return nil, nil, false, errors.New("it is no JWT, or longer than 16 KiB")
	}
	// Only one spelling of each part is accepted, so a token has one. A JSON decoder turns invalid UTF-8 into U+FFFD.
	for i, part := range strings.Split(text, ".") {
		plain, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || len(plain) == 0 || i < 2 && !utf8.Valid(plain) {
			return nil, nil, false, errors.New("it is not signed, or not base64url of UTF-8 in its one spelling")
		}
	}
	signed, err := jwt.ParseSigned(text, signing())
	if err != nil {
		return nil, nil, false, errors.New(
			"its header is malformed, or its algorithm is none that a public key can check",
		)
	}
	header := signed.Headers[0]
	t = &token{signed: signed, alg: header.Algorithm, kid: header.KeyID}
	// RFC 7515 section 4.1.11: an unknown critical extension makes the token invalid. patd knows none.
	for _, name := range []jose.HeaderKey{"crit", "b64"} {
		if _, given := header.ExtraHeaders[name]; given {
			return nil, nil, false, errors.New("its header asks for an extension of JWS")
		}
	}
	if err := signed.UnsafeClaimsWithoutVerification(&t.claims); err != nil || t.claims == nil {
		return nil, nil, false, errors.New("its claims are no JSON object")
	}
	typ, given = header.ExtraHeaders[jose.HeaderType]
	return t, typ, given, nil
}

// typeAllowed reports whether `typ` is allowed: a media type without regard to case, from which "application/" may be
// left out (RFC 7515 section 4.1.9).
func typeAllowed(typ any) bool {
	text, _ := typ.(string)
	switch strings.TrimPrefix(strings.ToLower(text), "application/") {
	case "jwt", "at+jwt":
		return true
	}
	return false
}

// signing returns the algorithms that a public key can verify.
func signing() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256,
		jose.RS384,
		jose.RS512,
		jose.PS256,
		jose.PS384,
		jose.PS512,
		jose.ES256,
		jose.ES384,
		jose.ES512,
		jose.EdDSA,
	}
}
