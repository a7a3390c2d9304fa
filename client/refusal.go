package client

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"patd/tokens/refusal"
)

// errorDomain is the domain of every google.rpc.ErrorInfo about a token, as in patd's own errors.
const errorDomain = "patd"

// Reason is the stable reason of a refusal, as patd itself gives it, such as TOKEN_EXPIRED; empty for Allow. A wrong
// secret and an unknown token have the same, CREDENTIAL_INVALID.
func (d Decision) Reason() string {
	switch d {
	case Allow:
		return ""
	case InsufficientScope:
		return refusal.ScopesMissing
	default:
		return refusal.ReasonOf(d.String())
	}
}

// Refusal says why the token is refused, for its bearer, with the scopes that the call needs. Its text and metadata are
// those that patd itself sends.
func (r Result) Refusal(required []string) refusal.Refusal {
	if r.Decision == InsufficientScope && r.Token != nil {
		out := refusal.OfScopes(required, r.Missing, slices.Sorted(slices.Values(r.Token.Granted)), r.Token.Paused...)
		out.ExpireTime = r.Token.ExpireTime
		return out
	}
	return refusal.Refusal{Reason: r.Decision.Reason(), Since: r.EndTime, ExpireTime: r.expires()}
}

// expires returns when the presented secret stops working, or stopped; zero: never, or not known.
func (r Result) expires() time.Time {
	if r.Token != nil {
		return r.Token.ExpireTime
	}
	return r.ExpireTime
}

// renewHeaders returns the values of refusal.HeaderExpiresAt and HeaderRenew for a token; empty: the header is left
// out.
func renewHeaders(expire time.Time, page string, now time.Time) (at, renew string) {
	if refusal.Due(expire, now) {
		renew = page
	}
	return refusal.Time(expire), renew
}

// setRenewal sets those headers.
func setRenewal(h http.Header, at, renew string) {
	for _, f := range [...]struct{ name, value string }{{refusal.HeaderExpiresAt, at}, {refusal.HeaderRenew, renew}} {
		if f.value != "" {
			h.Set(f.name, f.value)
		}
	}
}

// renewalMetadata returns those headers as the metadata of a gRPC answer.
func renewalMetadata(at, renew string) metadata.MD {
	md := metadata.MD{}
	if at != "" {
		md.Set(refusal.HeaderExpiresAt, at)
	}
	if renew != "" {
		md.Set(refusal.HeaderRenew, renew)
	}
	return md
}

// statusOf returns the gRPC error for a refused bearer, with the reason in an ErrorInfo.
func statusOf(code codes.Code, r refusal.Refusal) error {
	return withReason(code, r.Reason, r.Text(), r.Metadata())
}

func withReason(code codes.Code, reason, text string, metadata map[string]string) error {
	st := status.New(code, text)
	info := &errdetails.ErrorInfo{Reason: reason, Domain: errorDomain, Metadata: metadata}
	if with, err := st.WithDetails(protoadapt.MessageV1Of(info)); err == nil {
		st = with
	}
	return st.Err()
}

// refusalBody is the body of an HTTP refusal: the members of RFC 6749 section 5.2, and patd's reason.
type refusalBody struct {
	Error       string   `json:"error"`
	Description string   `json:"error_description,omitempty"`
	Reason      string   `json:"reason,omitempty"`
	Missing     []string `json:"missing_scopes,omitempty"`
	Suspended   []string `json:"suspended_scopes,omitempty"`
	Paused      []string `json:"paused_scopes,omitempty"`
}

func bodyOf(code string, r refusal.Refusal) refusalBody {
	return refusalBody{
		Error:       code,
		Description: r.Text(),
		Reason:      r.Reason,
		Missing:     r.Missing,
		Suspended:   r.Suspended,
		Paused:      r.Paused,
	}
}

// scopeList joins scopes for a challenge.
func scopeList(scopes []string) string { return strings.Join(scopes, " ") }
