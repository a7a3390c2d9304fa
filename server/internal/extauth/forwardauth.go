package extauth

import (
	"context"
	"maps"
	"net/http"
	"net/url"

	"google.golang.org/grpc/codes"

	"patd/server/internal/call"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/tokens"
)

const (
	// PathForwardAuth is the path for nginx (auth_request), Traefik (ForwardAuth) and Caddy (forward_auth).
	PathForwardAuth = "/v1/forward-auth"
	// methodForwardAuth is its name in logs and metrics.
	methodForwardAuth = "v1.forward-auth"
)

// ForwardAuth decides for a gateway whether a request may pass: 200 with the headers for the upstream, 401, 403, or 503
// in an outage. The gateway presents no credential. Authorization is the client's, so a bad one does not count against
// the gateway's address: otherwise one client could lock out all others. Only the header Authorization is read,
// X-API-Key if that is accepted, and X-Forwarded-For if the gateway is a trusted proxy.
type ForwardAuth struct {
	*call.Chain
	gatekeeper
	method *call.Method
}

// NewForwardAuth returns the endpoint.
func NewForwardAuth(service *tokens.Service, network *call.Chain, accept Accept) *ForwardAuth {
	return &ForwardAuth{
		network,
		gatekeeper{service, accept},
		network.Page(methodForwardAuth, call.Right{Hot: true, Reads: true}),
	}
}

// ServeHTTP serves one request and writes its log line, whatever the result.
func (f *ForwardAuth) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), f.Timeout)
	defer cancel()
	served := httpx.Begin(ctx, f.Chain, f.method, "")
	x, begun := served.Exchange, served.Call
	f.TraceDirect(begun, r.Header)
	defer served.End(func(err error) codes.Code { return f.fail(w, begun, err) })
	if !httpx.Reads(r) {
		served.Code = codes.Unimplemented
		httpx.AnswerMethod(w, x.RequestID, []string{http.MethodGet, http.MethodHead})
		return
	}
	p, err := readPassage(r, x)
	if err != nil {
		served.Code = f.fail(w, begun, err)
		return
	}
	v, err := f.decide(begun, begun.Actor, p)
	if err != nil {
		served.Code = f.fail(w, begun, err)
		return
	}
	served.Code = v.code()
	v.write(w, x.RequestID)
}

// readPassage reads a gateway's request.
func readPassage(r *http.Request, x *httpx.Exchange) (passage, error) {
	p := passage{presented: presented{r.Header.Values("Authorization"), r.Header.Values(headerKey)}, client: x.Client}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return p, tokens.Invalid("QUERY_INVALID", "", "a query is UTF-8 in percent-encoding, joined by &")
	}
	for name := range query {
		if name != paramScope && name != paramAudience {
			return p, errRoute(name)
		}
	}
	if p.scopes, err = readScopes(query[paramScope]); err != nil {
		return p, err
	}
	p.audience, err = readAudience(query[paramAudience])
	return p, err
}

// write responds with a verdict. A pass has no body: gateways drop it.
func (v *verdict) write(w http.ResponseWriter, requestID string) {
	for _, t := range v.upstream {
		w.Header().Set(t.name, t.value)
	}
	h, st := v.headers(requestID)
	maps.Copy(w.Header(), h)
	if st == nil {
		w.WriteHeader(http.StatusOK)
		return
	}
	class := fault.ClassOfGRPC(st.Code())
	httpx.WriteErrorAs(w, st, class, class.HTTP)
}

// fail responds with an error, keeps its private cause for the log, and returns the code for metrics. A timeout is an
// outage too. No gateway lets the request pass, whatever the error.
func (f *ForwardAuth) fail(w http.ResponseWriter, begun *call.Call, err error) codes.Code {
	public := begun.Explain(err)
	class := fault.ClassOfDomain(public.Code)
	code := class.HTTP
	if code == http.StatusGatewayTimeout {
		code = http.StatusServiceUnavailable
	}
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", fault.OutageRetryAfter)
	}
	httpx.WriteErrorAs(w, fault.Status(public, begun.RequestID()), class, code)
	return class.GRPC
}
