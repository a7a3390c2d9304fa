package extauth

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"patd/server/internal/call"
	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/tokens"
)

// Envoy serves envoy.service.auth.v3.Authorization, which Envoy and products built on it call from the filter
// ext_authz. The caller is the gateway, with a service token that may introspect; the token in question is its
// client's.
type Envoy struct {
	authv3.UnimplementedAuthorizationServer
	gatekeeper
	forward bool // the upstream gets the client's Authorization
}

var _ authv3.AuthorizationServer = Envoy{}

// RegisterEnvoy registers the service so that every failure is sent as a denial, since Envoy's failure_mode_allow lets
// a gRPC error pass. If the gateway itself has no good token or lacks the right, the call's log line and metric show
// it.
func RegisterEnvoy(g call.Guard, s Envoy) {
	desc := authv3.Authorization_ServiceDesc
	desc.Methods = slices.Clone(desc.Methods)
	for i := range desc.Methods {
		handle := g.Chain.Guard("/"+desc.ServiceName+"/"+desc.Methods[i].MethodName, desc.Methods[i].Handler)
		desc.Methods[i].Handler = func(srv any, ctx context.Context, dec func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
			resp, err := handle(srv, ctx, dec, chain)
			switch status.Code(err) {
			case codes.OK:
				return resp, err
			case codes.InvalidArgument,
				codes.Unauthenticated,
				codes.PermissionDenied,
				codes.Unimplemented: // no client can mend the gateway
				return deny(status.Code(err), http.StatusInternalServerError), nil
			default:
				return deny(
					codes.Unavailable,
					http.StatusServiceUnavailable,
					field{"Retry-After", fault.OutageRetryAfter},
				), nil
			}
		}
	}
	g.Server.RegisterService(&desc, s)
}

// Check decides on one request.
func (s Envoy) Check(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	seen := headersOf(r.GetAttributes().GetRequest().GetHttp())
	p, err := fromCheck(r.GetAttributes(), seen)
	if err != nil {
		return nil, err
	}
	v, err := s.decide(ctx, call.ActorOf(ctx), p)
	switch {
	case err != nil:
		return nil, err
	}
	h, st := v.headers(call.Of(ctx).RequestID())
	if st != nil {
		return refuse(st, h), nil
	}
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: overwriting(v.upstream), HeadersToRemove: s.removed(seen), ResponseHeadersToAdd: responding(h),
		}},
	}, nil
}

// refuse rejects a request with the headers and the body that forward-auth has.
func refuse(st *status.Status, h http.Header) *authv3.CheckResponse {
	class := fault.ClassOfGRPC(st.Code())
	out := deny(st.Code(), class.HTTP)
	denied := out.GetDeniedResponse()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	denied.Headers = responding(h)
	if body, err := json.Marshal(httpx.ErrorBody(st, class, class.HTTP)); err == nil {
		denied.Body = string(body) + "\n"
	}
	return out
}

// responding returns headers for the client. The values of one name stay apart.
func responding(h http.Header) []*corev3.HeaderValueOption {
	var out []*corev3.HeaderValueOption
	for _, name := range slices.Sorted(maps.Keys(h)) {
		first := len(out)
		for _, value := range h[name] {
			out = append(out, overwriting([]field{{name, value}})...)
		}
		for _, more := range out[first+1:] {
			more.AppendAction = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
		}
	}
	return out
}

// fromCheck reads the needs of a route from its context extensions, and the client's address. Envoy's own rule for
// x-forwarded-for determines that address, and it is not applied a second time.
func fromCheck(a *authv3.AttributeContext, seen []field) (passage, error) {
	var p passage
	var scope, audience []string
	for name, value := range a.GetContextExtensions() {
		switch name {
		case paramScope:
			scope = []string{value}
		case paramAudience:
			audience = []string{value}
		default:
			return p, errRoute(name)
		}
	}
	for _, h := range seen {
		switch strings.ToLower(h.name) {
		case "authorization":
			p.authorization = append(p.authorization, h.value)
		case "x-api-key":
			p.apiKey = append(p.apiKey, h.value)
		}
	}
	if ip, err := netip.ParseAddr(a.GetSource().GetAddress().GetSocketAddress().GetAddress()); err == nil {
		p.client = call.Plain(ip)
	}
	var err error
	if p.scopes, err = readScopes(scope); err != nil {
		return p, err
	}
	p.audience, err = readAudience(audience)
	return p, err
}

// headersOf returns a request's headers from either form that Envoy sends: joined by commas per name, or one by one.
func headersOf(r *authv3.AttributeContext_HttpRequest) []field {
	var found []field
	for name, value := range r.GetHeaders() {
		found = append(found, field{name, value})
	}
	for _, h := range r.GetHeaderMap().GetHeaders() {
		value := h.GetValue()
		if len(h.GetRawValue()) > 0 {
			value = string(h.GetRawValue())
		}
		found = append(found, field{h.GetKey(), value})
	}
	return found
}

// removed returns the client's headers that the upstream must not see, since it could take them for patd's: other names
// with the same beginning, and spellings with underscores, which many frameworks treat as the same. Envoy removes after
// it sets, so headers that are set are not among them. A gateway may hide some headers, so known spellings are always
// removed.
func (s Envoy) removed(seen []field) []string {
	set := []string{"x-auth-user", "x-auth-scopes", "x-auth-token-id", "x-token-expires-at"}
	var names []string
	for _, name := range set {
		names = append(names, alikes(name)...)
	}
	for _, h := range seen {
		name := strings.ToLower(h.name)
		same := strings.ReplaceAll(name, "_", "-")
		if (strings.HasPrefix(same, "x-auth-") || same == "x-token-expires-at") && !slices.Contains(set, name) {
			names = append(names, name)
		}
	}
	if !s.forward {
		names = append(names, "authorization")
		if s.accept.APIKey {
			names = append(names, "x-api-key")
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// alikes returns the spellings of a name with one or more hyphens replaced by underscores.
func alikes(name string) []string {
	parts := strings.Split(name, "-")
	all := parts[:1]
	for _, part := range parts[1:] {
		longer := make([]string, 0, 2*len(all))
		for _, s := range all {
			longer = append(longer, s+"-"+part, s+"_"+part)
		}
		all = longer
	}
	return all[1:] // the first has no underscores
}

// overwriting replaces headers, also with empty values.
func overwriting(fields []field) []*corev3.HeaderValueOption {
	out := make([]*corev3.HeaderValueOption, len(fields))
	for i, f := range fields {
		out[i] = &corev3.HeaderValueOption{
			Header:         &corev3.HeaderValue{Key: f.name, Value: f.value},
			AppendAction:   corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			KeepEmptyValue: true,
		}
	}
	return out
}

// deny rejects a request; its client gets the HTTP code.
func deny(code codes.Code, httpCode int, headers ...field) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(code)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode(httpCode)}, Headers: overwriting(headers),
		}},
	}
}

// NewEnvoy returns the service.
func NewEnvoy(service *tokens.Service, forward bool, accept Accept) Envoy {
	return Envoy{gatekeeper: gatekeeper{service, accept}, forward: forward}
}
