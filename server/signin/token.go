package signin

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/coreos/go-oidc/v3/oidc"

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
	secret   tokens.Secret
	alg, kid string
	payload  []byte
	claims   object
}

// isPayload tells whether what was verified is what was taken apart.
func (t *token) isPayload(verified *oidc.IDToken) bool {
	var raw json.RawMessage
	return verified.Claims(&raw) == nil && bytes.Equal(raw, t.payload)
}

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

// parse takes a token apart and refuses headers that patd does not understand.
func parse(secret tokens.Secret) (*token, error) {
	text := secret.Reveal()
	if !LooksLikeJWT(text) {
		return nil, errors.New("it is no JWT, or longer than 16 KiB")
	}
	parts := strings.Split(text, ".")
	header, _, err := decode(parts[0])
	if err != nil {
		return nil, errors.New("its header is no JSON object")
	}
	t := &token{secret: secret}
	var ok bool
	if t.alg, ok = header.text("alg"); !ok || !signing(t.alg) {
		return nil, errors.New("its algorithm is none that a public key can check")
	}
	if _, given := header["kid"]; given {
		if t.kid, ok = header.text("kid"); !ok {
			return nil, errors.New("its kid is no string")
		}
	}
	// RFC 7515 section 4.1.11: what is critical and not understood refuses the token. Nothing is understood here.
	for _, name := range []string{"crit", "b64"} {
		if _, given := header[name]; given {
			return nil, errors.New("its header asks for an extension of JWS")
		}
	}
	if _, given := header["typ"]; given && !typeAllowed(header) {
		return nil, errors.New("its type is neither JWT nor at+jwt")
	}
	if t.claims, t.payload, err = decode(parts[1]); err != nil {
		return nil, errors.New("its claims are no JSON object")
	}
	// A signature has one spelling here, too, so that a token has one.
	if _, err := base64.RawURLEncoding.Strict().DecodeString(parts[2]); err != nil || parts[2] == "" {
		return nil, errors.New("it is not signed")
	}
	return t, nil
}

// decode reads a part of a JWT.
func decode(part string) (object, []byte, error) {
	text, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, nil, err
	}
	if !utf8.Valid(text) {
		return nil, nil, errors.New("not UTF-8")
	}
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, nil, err
	}
	if o == nil {
		return nil, nil, errors.New("null")
	}
	return o, text, nil
}

// typeAllowed reads `typ`: a media type without regard to case, from which "application/" may be left out (RFC 7515
// section 4.1.9).
func typeAllowed(header object) bool {
	typ, _ := header.text("typ")
	switch strings.TrimPrefix(strings.ToLower(typ), "application/") {
	case "jwt", "at+jwt":
		return true
	}
	return false
}

// signing tells whether an algorithm is one of those that a public key checks.
func signing(alg string) bool {
	switch alg {
	case oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512,
		oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA:
		return true
	}
	return false
}
