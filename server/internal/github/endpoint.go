package github

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"google.golang.org/grpc/codes"

	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/tokens"
	"patd/tokens/secret"
)

const (
	// Path is where GitHub sends its messages.
	Path = "/v1/leaks/github"
	// method is its name in logs and metrics.
	method = "v1.leaks.github"

	headerKey       = "Github-Public-Key-Identifier"
	headerSignature = "Github-Public-Key-Signature"
	maxHeader       = 256 // bytes

	// maxLarge bounds the bytes that all messages together hold beyond their first 64 KiB, before they are verified.
	maxLarge = 8 << 20
)

// Endpoint takes GitHub's messages.
type Endpoint struct {
	*call.Chain
	method *call.Method
	keys   *Keys
	large  *call.UnknownMemory
}

// New returns the endpoint.
func New(network *call.Chain, k *Keys) *Endpoint {
	return &Endpoint{network, network.Page(method, call.Right{Anyone: true}), k, network.Unknown.Apart(maxLarge)}
}

// match is one secret that GitHub has found.
type match struct {
	token, kind, url, source string
}

// label is what GitHub is told of a match. The hash stands for the token, which is shown to nobody again.
type label struct {
	Hash  string `json:"token_hash"`
	Type  string `json:"token_type"`
	Label string `json:"label"`
}

// ServeHTTP serves one message and writes its log line, whatever the result.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), e.Timeout)
	defer cancel()
	served := httpx.Begin(ctx, e.Chain, e.method, "")
	x, begun := served.Exchange, served.Call
	e.TraceDirect(begun, r.Header)
	defer served.End(func(err error) codes.Code { return e.fail(w, r, begun, err) })
	if r.Method != http.MethodPost {
		served.Code = codes.Unimplemented
		httpx.AnswerMethod(w, x.RequestID, []string{http.MethodPost})
		return
	}
	labels, err := e.take(begun, r, x)
	if err != nil {
		served.Code = e.fail(w, r, begun, err)
		return
	}
	served.Code = codes.OK
	httpx.WriteJSON(w, http.StatusOK, labels)
}

// take verifies a message, revokes what is live in it, and returns the answer.
func (e *Endpoint) take(begun *call.Call, r *http.Request, x *httpx.Exchange) ([]label, error) {
	if len(r.Header.Values("Idempotency-Key")) > 0 {
		return nil, call.ErrKeyUnsupported()
	}
	body, err := e.verified(begun, r, x)
	if err != nil {
		if errors.Is(err, errForged) {
			err = e.Limits.Forged(begun.Peer.IP, err)
		}
		return nil, err
	}
	begun.Actor = tokens.Partner("github", begun.Peer)
	matches, err := parse(body)
	if err != nil {
		return nil, err
	}
	finds := make([]tokens.Find, len(matches))
	for i, m := range matches {
		finds[i] = tokens.Find{Text: secret.NewSecret(m.token), Place: m.source, URL: m.url}
	}
	ours, err := e.Service.ReportFinds(begun, begun.Actor, finds)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, tokens.StoreUnavailable("revoke leaked secrets in time", err)
	}
	if err != nil {
		return nil, err
	}
	labels := make([]label, len(matches))
	for i, m := range matches {
		sum := sha256.Sum256([]byte(m.token))
		labels[i] = label{hex.EncodeToString(sum[:]), m.kind, "false_positive"}
		if ours[i] {
			labels[i].Label = "true_positive"
		}
	}
	return labels, nil
}

// errForged is the error of a message that GitHub has not signed.
var errForged = tokens.Fail(tokens.CodeUnauthenticated, "SIGNATURE_INVALID",
	"the message has no signature of GitHub in "+headerKey+" and "+headerSignature)

// verified returns the body of a message that GitHub has signed, or errForged. The headers are checked before the body
// is read, and the body is bounded.
func (e *Endpoint) verified(ctx context.Context, r *http.Request, x *httpx.Exchange) ([]byte, error) {
	id, named := only(r, headerKey)
	text, signed := only(r, headerSignature)
	signature, err := base64.StdEncoding.DecodeString(text)
	if !named || !signed || err != nil {
		return nil, errForged
	}
	key, err := e.keys.get(ctx, id)
	if errors.Is(err, errNoKey) {
		return nil, errForged
	}
	if err != nil {
		return nil, err
	}
	if x.Body != nil {
		x.Body.Extend(e.large.Hold(connection.Of(ctx)))
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, httpx.UnreadBody(err)
	}
	if sum := sha256.Sum256(body); !ecdsa.VerifyASN1(key, sum[:], signature) {
		return nil, errForged
	}
	return body, nil
}

// only returns the value of a header that is there once.
func only(r *http.Request, name string) (string, bool) {
	values := r.Header.Values(name)
	if len(values) != 1 || values[0] == "" || len(values[0]) > maxHeader {
		return "", false
	}
	return values[0], true
}

// parse reads the matches of a message. One that names no token is left out: there is nothing to say of it.
func parse(body []byte) ([]match, error) {
	var items []json.RawMessage
	if json.Unmarshal(body, &items) != nil {
		return nil, tokens.Invalid("JSON_INVALID", "", "the body is not an array of matches")
	}
	matches := make([]match, 0, len(items))
	for _, item := range items {
		var fields map[string]json.RawMessage
		if json.Unmarshal(item, &fields) != nil {
			continue
		}
		m := match{
			token:  fieldOf(fields, "token"),
			kind:   fieldOf(fields, "type"),
			url:    fieldOf(fields, "url"),
			source: fieldOf(fields, "source"),
		}
		if m.token != "" {
			matches = append(matches, m)
		}
	}
	return matches, nil
}

// fieldOf returns a field of a match; empty: it is no text.
func fieldOf(fields map[string]json.RawMessage, name string) (value string) {
	if raw, ok := fields[name]; ok && json.Unmarshal(raw, &value) != nil {
		return ""
	}
	return value
}

// fail responds with an error, keeps its private cause for the log, and returns the code for metrics.
func (e *Endpoint) fail(w http.ResponseWriter, r *http.Request, begun *call.Call, err error) codes.Code {
	public := begun.Explain(err)
	st := fault.Status(public, begun.RequestID())
	var often *fault.TooOften
	if errors.As(err, &often) {
		st = often.Status(begun, begun.RequestID())
	} else if st.Code() == codes.Unavailable || st.Code() == codes.DeadlineExceeded {
		w.Header().Set("Retry-After", fault.OutageRetryAfter)
	}
	httpx.WriteError(w, r, st)
	return st.Code()
}
