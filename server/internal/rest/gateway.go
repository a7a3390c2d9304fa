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
	"patd/server/internal/call"
	"patd/server/internal/connection"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/tokens"
	"patd/tokens/secret"
)

// DialInProcess connects the gateway with the listener behind which the chain stands. The connection is made with the
// first call. The time limit of a call counts from here on, so that waiting for the connection is part of it.
func DialInProcess(lis *bufconn.Listener, timeout time.Duration) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///in-process",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithChainUnaryInterceptor(markReached, limited(timeout)),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(math.MaxInt32), experimental.AcceptCompressors()),
	)
	if err != nil {
		return nil, fmt.Errorf("connect the gateway: %w", err)
	}
	return conn, nil
}

// markReached notes that a request has left the gateway for the chain, which logs and counts it.
func markReached(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	x := httpx.ExchangeOf(ctx)
	x.Reached = true
	if x.Body != nil && x.Body.Empty {
		ctx = metadata.AppendToOutgoingContext(ctx, call.KeyEmptyBody, "true")
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

// UnlimitedStreams lets every REST request that was admitted reach the chain: all of them share one connection, and where
// it has no room for another, calls that hang would keep those waiting that do not.
const UnlimitedStreams = math.MaxUint32

// LostCallGrace is how much longer than its time limit the gateway waits for a call, so that it is the chain that says, and
// logs, what happened.
const LostCallGrace = 500 * time.Millisecond

// limited gives each call a time limit.
func limited(timeout time.Duration) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		bounded, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return invoke(bounded, method, req, reply, cc, opts...)
	}
}

// NewGateway makes the REST interface on top of a connection to the chain.
func NewGateway(ctx context.Context, conn *grpc.ClientConn, issuer string) (*runtime.ServeMux, error) {
	g := &gateway{issuer: strings.TrimRight(issuer, "/")}
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, httpx.NewJSONCodec()),
		// Splits a path at its literal slashes only, and decodes each segment once, so that ids may hold anything.
		runtime.WithUnescapingMode(runtime.UnescapingModeAllExceptSlash),
		runtime.SetQueryParameterParser(&queryParser{}),
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

// incomingHeader lets headers through to the chain. The gateway itself passes Authorization on, under that name and no
// other, and reads Grpc-Timeout; the request id and the client's address travel under private keys.
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
	default:
		return "", false
	}
}

func outgoingHeader(key string) (string, bool) {
	if key == call.KeyReplayed {
		return "Idempotency-Replayed", true
	}
	return "", false
}

// annotate tells the chain what the front found out.
func annotate(ctx context.Context, _ *http.Request) metadata.MD {
	x := httpx.ExchangeOf(ctx)
	md := metadata.Pairs(call.KeyRequestID, x.RequestID)
	if x.Client.IsValid() {
		md.Set(call.KeyClient, x.Client.String())
	}
	if c := connection.Of(ctx); c != nil {
		md.Set(call.KeyConnection, strconv.FormatUint(c.Number, 10))
	}
	return md
}

// answerError answers a request that failed. What the chain says is passed on; what the gateway says of a request that it
// could not read is said anew, because the gateway repeats what was sent.
func answerError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	x, st := httpx.ExchangeOf(r.Context()), status.Convert(err)
	if _, ours := fault.Reason(st); x.Reached && ours {
		httpx.WriteError(w, r, st)
		return
	}
	e := x.RefusedBody()
	switch {
	case !x.Reached && len(r.Header.Values("Authorization")) == 0 && r.URL.Path != pathLeaks:
		e = call.NoCredential() // every other method here needs one, and that comes before what is wrong with the request
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

// lostCall is the error of a call whose answer did not come back; nil: it should have.
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

// answerUnrouted answers a path that is not served, without repeating it, or a method that the path does not have.
func (g *gateway) answerUnrouted(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	if r.Context().Value(probeKey{}) != nil {
		return
	}
	x := httpx.ExchangeOf(r.Context())
	if code == http.StatusMethodNotAllowed {
		httpx.AnswerMethod(w, x.RequestID, g.methods(r))
		return
	}
	httpx.WriteError(w, r, fault.Status(tokens.Fail(tokens.CodeNotFound, "PATH_NOT_FOUND", "nothing is served under this path"), x.RequestID))
}

type probeKey struct{}

// methods lists the methods that a path has, by asking the routes with each.
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

// probeRoutes answers the question of methods instead of serving.
func probeRoutes(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		if matched, ok := r.Context().Value(probeKey{}).(*bool); ok {
			*matched = true
			return
		}
		next(w, r, params)
	}
}

// discard is a ResponseWriter that nobody reads.
type discard struct{}

// Header answers a header that nobody reads.
func (discard) Header() http.Header { return http.Header{} }

// Write drops p.
func (discard) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader drops the code.
func (discard) WriteHeader(int) {}

// nextPage is where the page after an answer starts, and the query parameter that says so; empty: there is none.
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

// link adds the address of the next page (RFC 8288), unless the query holds the secret of a token, which is not to be
// repeated. The page after an answer to POST has no address.
func (g *gateway) link(ctx context.Context, w http.ResponseWriter, m proto.Message) error {
	x := httpx.ExchangeOf(ctx)
	parameter, next := nextPage(m)
	if next == "" || !x.Reads {
		return nil
	}
	query, err := url.ParseQuery(x.Query)
	if err != nil {
		return fmt.Errorf("link the next page: %w", err) // the front lets no such query through
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

// tagAnswer sets the ETag header of an answer that holds one record.
func tagAnswer(_ context.Context, w http.ResponseWriter, m proto.Message) error {
	call.SetTag(w, m)
	return nil
}

// answerCode sets the codes that are not 200: those of the catalogue's create and delete. An answer of 204 has no body.
func answerCode(_ context.Context, w http.ResponseWriter, m proto.Message) error {
	switch m.ProtoReflect().Interface().(type) {
	case *patdv1.CreateFeatureResponse, *patdv1.CreateAudienceResponse:
		w.WriteHeader(http.StatusCreated)
	case *patdv1.DeleteFeatureResponse, *patdv1.DeleteAudienceResponse:
		w.Header().Del("Content-Type")
		w.WriteHeader(http.StatusNoContent)
	}
	return nil
}
