package server

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"google.golang.org/grpc/codes"

	"patd/tokens"
)

const (
	// pathForwardAuth is where nginx (auth_request), Traefik (ForwardAuth) and Caddy (forward_auth) ask.
	pathForwardAuth = "/v1/forward-auth"
	// methodForwardAuth is its name in logs and metrics.
	methodForwardAuth = "v1.forward-auth"
)

// forwardAuth tells a gateway whether a request may pass: 200 with what the upstream is to be told, 401, 403, or 503 when that
// cannot be told. The gateway shows no credential. What stands in Authorization is the client's, so that it does not
// count as a bad credential of the gateway's address, whatever it is: one client could lock out all the others. Of the
// headers only Authorization is looked at, and X-Forwarded-For where the gateway is a trusted proxy.
type forwardAuth struct {
	*chain
	gatekeeper
	method *method
}

func newForwardAuth(service *tokens.Service, network *chain) *forwardAuth {
	return &forwardAuth{network, gatekeeper{service}, network.page(methodForwardAuth, right{hot: true, reads: true})}
}

// ServeHTTP serves one request and writes its one log line, whatever becomes of it.
func (f *forwardAuth) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), f.timeout)
	defer cancel()
	x, start, code := exchangeOf(ctx), time.Now(), codes.Internal
	x.reached = true
	begun := &call{Context: ctx, method: f.method, id: x.requestID, peer: tokens.Peer{IP: x.client}, connection: connectionOf(ctx)}
	begun.actor.Peer = begun.peer
	defer func() {
		if v := recover(); v != nil {
			f.logPanic(begun, v)
			code = f.fail(w, begun, errPanic)
		}
		took := time.Since(start)
		f.method.metrics.observe(code, took)
		f.log(begun, code, took)
	}()
	if !reads(r) {
		code = codes.Unimplemented
		answerMethod(w, x.requestID, []string{http.MethodGet, http.MethodHead})
		return
	}
	p, err := readPassage(r, x)
	if err != nil {
		code = f.fail(w, begun, err)
		return
	}
	v, err := f.decide(ctx, begun.actor, p)
	if err != nil {
		code = f.fail(w, begun, err)
		return
	}
	code = v.code
	v.write(w, x.requestID)
}

// readPassage reads what a gateway asks.
func readPassage(r *http.Request, x *exchange) (passage, error) {
	p := passage{authorization: r.Header.Values("Authorization"), client: x.client}
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

// write answers with a verdict. A pass has no body: gateways drop it.
func (v verdict) write(w http.ResponseWriter, requestID string) {
	for _, t := range v.told {
		w.Header().Set(t.name, t.value)
	}
	if v.code == codes.OK {
		w.WriteHeader(http.StatusOK)
		return
	}
	w.Header().Set("WWW-Authenticate", v.challenge)
	class := classOfGRPC(v.code)
	writeErrorAs(w, toStatus(tokens.Fail(class.code, v.reason, v.message), requestID), class, class.http)
}

// fail answers with an error, keeps for the log what is not told, and tells the code for metrics. What took too long is an outage
// too. Whatever it is, no gateway lets the request pass.
func (f *forwardAuth) fail(w http.ResponseWriter, begun *call, err error) codes.Code {
	public := publicError(err)
	if begun.cause = public.Cause; public.Code == tokens.CodeInternal && !errors.Is(err, errPanic) {
		begun.cause = err
	}
	class := classOfDomain(public.Code)
	code := class.http
	if code == http.StatusGatewayTimeout {
		code = http.StatusServiceUnavailable
	}
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", gateRetryAfter)
	}
	writeErrorAs(w, toStatus(public, begun.requestID()), class, code)
	return class.grpc
}
