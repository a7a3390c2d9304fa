package oauth

import (
	"io"
	"mime"
	"net/http"
	"net/url"

	"patd/server/internal/call"
	"patd/server/internal/httpx"
	"patd/tokens"
	"patd/tokens/secret"
)

// formType is the content type of RFC 6749 appendix B.
const formType = "application/x-www-form-urlencoded"

// form is the parameters of a request, without those that have no value: they are taken as left out (RFC 6749 section
// 3.1). What it does not know a server ignores.
type form map[string][]string

// readForm reads the form of a request, of at most 64 KiB: the client may show its credential in it. Parameters in the address are refused whatever they are, since addresses are logged
// on their way and a secret may stand in them. No error repeats what was sent.
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

// parseForm reads the text of a form. Parameters that are given twice are refused (RFC 6749 section 3.1), but for those
// that name targets (RFC 8693 section 2.1, RFC 8707 section 2).
func parseForm(text string) (form, error) {
	values, err := url.ParseQuery(text)
	if err != nil {
		return nil, tokens.Invalid("FORM_INVALID", "", "the body is no form: name=value in percent-encoding, joined by &")
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

// one is the value of a parameter; empty: it was left out.
func (f form) one(name string) string {
	if len(f[name]) == 0 {
		return ""
	}
	return f[name][0]
}

// secret is the value of a parameter that must be there, as a secret.
func (f form) secret(name string) (tokens.Secret, error) {
	text := f.one(name)
	if text == "" {
		return tokens.Secret{}, tokens.Invalid("PARAMETER_REQUIRED", name, "is required")
	}
	return secret.NewSecret(text), nil
}
