package oauth

import (
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"patd/server/internal/call"
	"patd/server/internal/httpx"
	"patd/tokens"
	"patd/tokens/secret"
)

// formType is the content type of RFC 6749 appendix B.
const formType = "application/x-www-form-urlencoded"

// maxParameters bounds the parameters of a form.
const maxParameters = 128

// form holds the parameters of a request, except empty ones: they are treated as absent (RFC 6749 section 3.1). A
// server ignores parameters that it does not know.
type form map[string][]string

// readForm reads a request's form of at most 64 KiB: the client may present its credential in it. Any parameter in the
// address is rejected, since addresses are logged on their way and it may be a secret. No error repeats the input.
func readForm(w http.ResponseWriter, r *http.Request) (form, error) {
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return nil, tokens.Invalid("QUERY_NOT_ALLOWED", "", "parameters stand in the body, never in the address")
	}
	types := r.Header.Values("Content-Type")
	if len(types) != 1 {
		return nil, errFormType()
	}
	if kind, _, err := mime.ParseMediaType(types[0]); err != nil || kind != formType {
		return nil, errFormType()
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, call.MaxUnknown))
	if err != nil {
		return nil, httpx.UnreadBody(err)
	}
	return parseForm(string(text))
}

func errFormType() *tokens.Error {
	return tokens.Invalid("CONTENT_TYPE_INVALID", "", "send the parameters as a form, with Content-Type: "+formType)
}

// parseForm parses the text of a form. Repeated parameters are rejected (RFC 6749 section 3.1), except those that name
// targets (RFC 8693 section 2.1, RFC 8707 section 2).
func parseForm(text string) (form, error) {
	if strings.Count(text, "&") >= maxParameters { // each takes a hundred bytes, before the client is known
		return nil, tokens.Invalid("FORM_INVALID", "", "a form has at most "+strconv.Itoa(maxParameters)+" parameters")
	}
	values, err := url.ParseQuery(text)
	if err != nil {
		return nil, tokens.Invalid(
			"FORM_INVALID",
			"",
			"the body is no form: name=value in percent-encoding, joined by &",
		)
	}
	f := make(form, len(values))
	for name, given := range values {
		if len(given) > 1 && name != "audience" && name != "resource" {
			return nil, errRepeated(name)
		}
		for _, v := range given {
			if v != "" {
				f[name] = append(f[name], v)
			}
		}
	}
	return f, nil
}

func errRepeated(name string) error {
	if !httpx.SafeName(name) {
		return tokens.Invalid("PARAMETER_REPEATED", "", "a parameter is given more than once")
	}
	return tokens.Invalid("PARAMETER_REPEATED", name, "is given more than once")
}

// one returns the value of a parameter, or "" if it is absent.
func (f form) one(name string) string {
	if len(f[name]) == 0 {
		return ""
	}
	return f[name][0]
}

// secret returns the value of a required parameter, as a secret.
func (f form) secret(name string) (tokens.Secret, error) {
	text := f.one(name)
	if text == "" {
		return tokens.Secret{}, tokens.Invalid("PARAMETER_REQUIRED", name, "is required")
	}
	return secret.NewSecret(text), nil
}
