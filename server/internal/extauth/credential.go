package extauth

import (
	"strings"

	"patd/internal/bearer"
	"patd/server/internal/httpx"
	"patd/tokens"
	"patd/tokens/refusal"
	"patd/tokens/secret"
)

// headerKey is the header of API keys, which is a convention and no standard.
const headerKey = "X-API-Key"

// Accept says which credentials are taken beside bearer tokens. The zero Accept takes none.
type Accept struct {
	// Basic takes Basic credentials with any user name and the token as the password, as git, docker, Maven and pip
	// send them. A 401 then also has a challenge for Basic.
	Basic bool
	// APIKey takes the header X-API-Key.
	APIKey bool
}

// presented is what a client of a gateway presents: every value of the headers that can hold a credential.
type presented struct{ authorization, apiKey []string }

// read returns the one token that a client presents, or else a refusal. RFC 6750 section 3.1 has 400 for a malformed
// request, such as one with two tokens. Here it is 401, since gateways treat any code but 401 and 403 as a fault of
// patd's.
func (a Accept) read(p presented) (tokens.Secret, *verdict) {
	values := p.authorization
	if a.APIKey {
		values = append(values[:len(values):len(values)], p.apiKey...)
	}
	if len(values) > 1 {
		return tokens.Secret{}, a.malformed()
	}
	var token string
	switch {
	case len(values) == 0:
	case len(p.authorization) == 0:
		token = values[0]
	default:
		token = a.fromAuthorization(values[0])
	}
	switch {
	case token == "":
		return tokens.Secret{}, a.missing()
	case strings.ContainsAny(token, ", "): // the trace of two headers that a gateway joined
		return tokens.Secret{}, a.malformed()
	}
	return secret.NewSecret(token), nil
}

// fromAuthorization returns the token in an Authorization header; empty: there is none that is taken.
func (a Accept) fromAuthorization(header string) string {
	scheme, credential := bearer.Split(header)
	switch {
	case strings.EqualFold(scheme, bearer.Bearer):
		return credential
	case a.Basic && strings.EqualFold(scheme, bearer.Basic):
		if strings.ContainsAny(credential, ", ") {
			return credential // malformed
		}
		_, password, _ := bearer.ParseBasic(credential)
		return password
	default:
		return ""
	}
}

func (a Accept) missing() *verdict {
	text := "this request needs a token: Authorization: Bearer and a token"
	if a.Basic {
		text += ", or Basic with the token as the password"
	}
	if a.APIKey {
		text += ", or " + headerKey + " and the token"
	}
	return &verdict{
		refused: tokens.Fail(tokens.CodeUnauthenticated, "CREDENTIAL_REQUIRED", text),
		how:     httpx.Refused{NoToken: true, Basic: a.Basic},
	}
}

func (a Accept) malformed() *verdict {
	return &verdict{
		refused: tokens.Fail(tokens.CodeUnauthenticated, refusal.NotValid, "give one token, once"),
		how:     httpx.Refused{Code: bearer.InvalidRequest, Basic: a.Basic},
	}
}
