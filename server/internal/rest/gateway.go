package rest

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/tracecontext"
	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/tokens"
	"patd/tokens/refusal"
	"patd/tokens/secret"
)

// DialInProcess connects the gateway with the in-process listener in front of the chain. The first call makes the
// connection. The time limit of a call starts here, so that it includes the wait for the connection.
func DialInProcess(lis *bufconn.Listener, timeout time.Duration) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(
		"passthrough:///in-process",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithChainUnaryInterceptor(markReached, limited(timeout)),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(
			grpc.WaitForReady(true),
			grpc.MaxCallRecvMsgSize(math.MaxInt32),
			experimental.AcceptCompressors(),
		),
	)
	if err != nil {
		return nil, fmt.Errorf("connect the gateway: %w", err)
	}
	return conn, nil
}

// markReached records that a request has passed from the gateway to the chain, which logs and counts it.
func markReached(
	ctx context.Context,
	method string,
	req, reply any,
	cc *grpc.ClientConn,
	invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption,
) error {
	x := httpx.ExchangeOf(ctx)
	x.Reached = true
	if x.Body != nil && x.Body.Empty {
		ctx = metadata.AppendToOutgoingContext(ctx, call.KeyEmptyBody, "true")
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

// UnlimitedStreams lets every admitted REST request reach the chain: all share one connection, and with a limit on its
// streams calls that hang would block others.
const UnlimitedStreams = math.MaxUint32

// LostCallGrace is how much longer than a call's time limit the gateway waits, so that the chain reports and logs the
// result.
const LostCallGrace = 500 * time.Millisecond

// limited gives each call a time limit.
func limited(timeout time.Duration) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		bounded, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return invoke(bounded, method, req, reply, cc, opts...)
	}
}

// setQueryParser sets the parser of query parameters. grpc-gateway keeps it in a variable of its package, whichever mux
// is given it, so a second server of a process must not write it while the first reads it.
var setQueryParser = sync.OnceFunc(func() { runtime.NewServeMux(runtime.SetQueryParameterParser(&queryParser{})) })

// NewGateway returns the REST API on top of a connection to the chain.
func NewGateway(ctx context.Context, conn *grpc.ClientConn, issuer string) (*runtime.ServeMux, error) {
	setQueryParser()
	g := &gateway{issuer: strings.TrimRight(issuer, "/")}
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, httpx.NewJSONCodec()),
		// Split a path at literal slashes only, and decode each segment once, so that ids may hold any character.
		runtime.WithUnescapingMode(runtime.UnescapingModeAllExceptSlash),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithIncomingHeaderMatcher(incomingHeader),
		runtime.WithOutgoingHeaderMatcher(outgoingHeader),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(annotate),
		runtime.WithErrorHandler(answerError),
		runtime.WithRoutingErrorHandler(g.answerUnrouted),
		runtime.WithForwardResponseOption(tagAnswer),
		runtime.WithForwardResponseOption(g.link),
		runtime.WithForwardResponseOption(answerCode),
		runtime.WithMiddlewares(probeRoutes, queryOrBody),
	)
	g.mux = mux
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		patdv1.RegisterTokenServiceHandler, patdv1.RegisterSelfServiceHandler, patdv1.RegisterIntrospectionServiceHandler,
		patdv1.RegisterUserServiceHandler, patdv1.RegisterServiceAccountServiceHandler, patdv1.RegisterAuditServiceHandler,
		patdv1.RegisterCatalogServiceHandler, patdv1.RegisterLeakServiceHandler,
		patdv1.RegisterInventoryServiceHandler, patdv1.RegisterPageServiceHandler,
		patdv1.RegisterSignInServiceHandler, patdv1.RegisterWebhookServiceHandler,
	} {
		if err := register(ctx, mux, conn); err != nil {
			return nil, fmt.Errorf("register the gateway: %w", err)
		}
	}
	return mux, nil
}

type gateway struct {
	mux    *runtime.ServeMux
	issuer string
}

// incomingHeader passes headers on to the chain. The gateway itself passes Authorization on, under that name only, and
// reads Grpc-Timeout; the request id and the client's address use private keys.
func incomingHeader(key string) (string, bool) {
	switch key {
	case "Idempotency-Key":
		return "idempotency-key", true
	case "If-Match":
		return call.KeyIfMatch, true
	case "If-None-Match":
		return call.KeyIfNoneMatch, true
	case "If-Unmodified-Since":
		return call.KeyIfUnmodifiedSince, true
	case "Traceparent":
		return tracecontext.HeaderParent, true
	case "Tracestate":
		return tracecontext.HeaderState, true
	default:
		return "", false
	}
}

func outgoingHeader(key string) (string, bool) {
	switch key {
	case call.KeyReplayed:
		return "Idempotency-Replayed", true
	case call.KeyExpiresAt:
		return refusal.HeaderExpiresAt, true
	case call.KeyRenew:
		return refusal.HeaderRenew, true
	default:
		return "", false
	}
}

// annotate passes the findings of the front on to the chain.
func annotate(ctx context.Context, _ *http.Request) metadata.MD {
	x := httpx.ExchangeOf(ctx)
	md := metadata.Pairs(call.KeyRequestID, x.RequestID)
	if pattern, ok := runtime.HTTPPathPattern(ctx); ok {
		x.Route = pattern
		x.RPC, _ = runtime.RPCMethod(ctx)
		md.Set(call.KeyRoute, x.Method+" "+pattern)
	}
	if x.Client.IsValid() {
		md.Set(call.KeyClient, x.Client.String())
	}
	if c := connection.Of(ctx); c != nil {
		md.Set(call.KeyConnection, strconv.FormatUint(c.Number, 10))
	}
	return md
}

// answerError responds to a failed request. Errors of the chain are passed on. An error of the gateway about a request
// that it could not read is replaced, because its text repeats the input.
func answerError(
	ctx context.Context,
	_ *runtime.ServeMux,
	_ runtime.Marshaler,
	w http.ResponseWriter,
	r *http.Request,
	err error,
) {
	if md, ok := runtime.ServerMetadataFromContext(ctx); ok {
		for _, at := range md.HeaderMD.Get(call.KeyExpiresAt) {
			w.Header().Set(refusal.HeaderExpiresAt, at)
		}
	}
	x, st := httpx.ExchangeOf(r.Context()), status.Convert(err)
	if refused := x.RefusedCaller(); refused != nil {
		httpx.WriteError(w, r, refused)
		return
	}
	if _, ours := fault.Reason(st); x.Reached && ours {
		httpx.WriteError(w, r, st)
		return
	}
	e := x.RefusedBody()
	switch {
	case !x.Reached && len(r.Header.Values("Authorization")) == 0 && r.URL.Path != pathLeaks:
		e = call.NoCredential() // all other methods need one, and that comes before other faults of the request
	case e != nil:
	case x.Reached:
		e = lostCall(st.Code())
	case st.Code() == codes.InvalidArgument:
		e = unreadable(st.Message())
	}
	if e == nil || e.Code == tokens.CodeInternal {
		x.Cause, e = err, fault.Public(err)
	}
	httpx.WriteError(w, r, fault.Status(e, x.RequestID))
}

// lostCall returns the error of a call whose response was lost, or nil if it should have arrived.
func lostCall(code codes.Code) *tokens.Error {
	switch code {
	case codes.DeadlineExceeded:
		return fault.Public(context.DeadlineExceeded)
	case codes.Canceled:
		return fault.Public(context.Canceled)
	case codes.Unavailable:
		return tokens.Fail(tokens.CodeUnavailable, "SERVER_STOPPING", "the server is stopping; try again")
	default:
		return nil
	}
}

// answerUnrouted responds to an unknown path, without repeating it, or to a method that the path does not support.
func (g *gateway) answerUnrouted(
	_ context.Context,
	_ *runtime.ServeMux,
	_ runtime.Marshaler,
	w http.ResponseWriter,
	r *http.Request,
	code int,
) {
	if r.Context().Value(probeKey{}) != nil {
		return
	}
	x := httpx.ExchangeOf(r.Context())
	if code == http.StatusMethodNotAllowed {
		httpx.AnswerMethod(w, x.RequestID, g.methods(r))
		return
	}
	httpx.WriteError(
		w,
		r,
		fault.Status(
			tokens.Fail(tokens.CodeNotFound, "PATH_NOT_FOUND", "nothing is served under this path"),
			x.RequestID,
		),
	)
}

type probeKey struct{}

// methods returns the methods that a path supports, by trying the routes with each.
func (g *gateway) methods(r *http.Request) []string {
	var found []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		matched := false
		probe := r.WithContext(context.WithValue(r.Context(), probeKey{}, &matched))
		probe.Method = m
		g.mux.ServeHTTP(discard{}, probe)
		if matched {
			found = append(found, m)
		}
		if matched && m == http.MethodGet {
			found = append(found, http.MethodHead)
		}
	}
	return found
}

// probeRoutes serves probes instead of serving.
func probeRoutes(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		if matched, ok := r.Context().Value(probeKey{}).(*bool); ok {
			*matched = true
			return
		}
		next(w, r, params)
	}
}

// discard is a ResponseWriter that discards its input.
type discard struct{}

// Header returns a new header.
func (discard) Header() http.Header { return http.Header{} }

// Write drops p.
func (discard) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader drops the code.
func (discard) WriteHeader(int) {}

// nextPage returns the start of the next page and the query parameter for it; empty: there is none.
func nextPage(m proto.Message) (parameter, value string) {
	switch page := m.(type) {
	case interface{ GetNextPageToken() string }:
		return "page_token", page.GetNextPageToken()
	case interface{ GetAfter() string }:
		return "after", page.GetAfter()
	default:
		return "", ""
	}
}

// link adds the address of the next page (RFC 8288), unless the query contains a token's secret, which must not be
// repeated. The response to a POST has no such link.
func (g *gateway) link(ctx context.Context, w http.ResponseWriter, m proto.Message) error {
	x := httpx.ExchangeOf(ctx)
	parameter, next := nextPage(m)
	if next == "" || !x.Reads {
		return nil
	}
	query, err := url.ParseQuery(x.Query)
	if err != nil {
		return fmt.Errorf("link the next page: %w", err) // the front rejects such queries
	}
	query.Set(parameter, next)
	target := x.Path + "?" + query.Encode()
	plain, err := url.QueryUnescape(target)
	if err != nil {
		return fmt.Errorf("link the next page: %w", err)
	}
	if secret.MayContainSecret(plain) {
		return nil
	}
	w.Header().Set("Link", "<"+g.issuer+target+`>; rel="next"`)
	return nil
}

// tagAnswer sets the ETag header of a response with one record.
func tagAnswer(_ context.Context, w http.ResponseWriter, m proto.Message) error {
	call.SetTag(w, m)
	return nil
}

// answerCode sets codes other than 200. A 204 has no body.
func answerCode(ctx context.Context, w http.ResponseWriter, _ proto.Message) error {
	full, _ := runtime.RPCMethod(ctx)
	code := call.HTTPStatus(full, nil)
	if code == http.StatusNoContent {
		w.Header().Del("Content-Type")
	}
	if code != http.StatusOK {
		w.WriteHeader(code)
	}
	return nil
}
