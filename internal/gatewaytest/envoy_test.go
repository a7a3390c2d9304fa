package gatewaytest

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"patd/internal/longtest"
	"patd/internal/proctest"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// envoy stands in for Envoy, which no package has: a proxy that reads envoy.yaml by Envoy's own definitions, asks patd
// by Envoy's own protocol, and does with the answer what Envoy documents, to the letter where that is unkind.
type envoy struct {
	listen   string
	clusters map[string]string // addresses by name
	strict   bool              // underscores in the names of headers are refused
	clean    bool              // paths are written anew, and those with encoded slashes refused
	routes   []*routev3.Route
	check    *extauthzv3.ExtAuthz
	secret   string // the environment's PATD_TOKEN
	client   authv3.AuthorizationClient
}

// readEnvoy reads a configuration as Envoy does: unknown fields are errors, and so is what the definitions forbid.
func readEnvoy(t *testing.T, config string) *envoy {
	t.Helper()
	var tree any
	must(t, yaml.Unmarshal([]byte(config), &tree))
	text, err := json.Marshal(tree)
	must(t, err)
	var bootstrap bootstrapv3.Bootstrap
	must(t, protojson.Unmarshal(text, &bootstrap))
	must(t, bootstrap.ValidateAll())
	e := &envoy{clusters: map[string]string{}}
	for _, c := range bootstrap.GetStaticResources().GetClusters() {
		for _, packed := range c.GetTypedExtensionProtocolOptions() {
			open(t, packed, &upstreamv3.HttpProtocolOptions{})
		}
		e.clusters[c.GetName()] = at(
			c.GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress(),
		)
	}
	listener := bootstrap.GetStaticResources().GetListeners()[0]
	e.listen = at(listener.GetAddress())
	manager := open(t, listener.GetFilterChains()[0].GetFilters()[0].GetTypedConfig(), &hcmv3.HttpConnectionManager{})
	e.strict = manager.GetCommonHttpProtocolOptions().
		GetHeadersWithUnderscoresAction() ==
		corev3.HttpProtocolOptions_REJECT_REQUEST
	e.clean = manager.GetNormalizePath().GetValue() && manager.GetMergeSlashes() &&
		manager.GetPathWithEscapedSlashesAction() == hcmv3.HttpConnectionManager_REJECT_REQUEST
	e.routes = manager.GetRouteConfig().GetVirtualHosts()[0].GetRoutes()
	filters := manager.GetHttpFilters()
	e.check = open(t, filters[0].GetTypedConfig(), &extauthzv3.ExtAuthz{})
	open(t, filters[1].GetTypedConfig(), &routerv3.Router{})
	return e
}

// open is the message in an Any, which must be valid.
func open[M interface {
	proto.Message
	ValidateAll() error
}](t *testing.T, packed *anypb.Any, m M) M {
	t.Helper()
	must(t, packed.UnmarshalTo(m))
	must(t, m.ValidateAll())
	return m
}

func at(a *corev3.Address) string {
	return net.JoinHostPort(a.GetSocketAddress().GetAddress(), strconv.Itoa(int(a.GetSocketAddress().GetPortValue())))
}

// startEnvoy runs the stand-in on what envoy.yaml says.
func startEnvoy(t *testing.T, s site) string {
	t.Helper()
	return startEnvoyWith(t, s, func(config string) string { return config })
}

// startEnvoyWith runs the stand-in on a changed configuration.
func startEnvoyWith(t *testing.T, s site, change func(string) string) string {
	t.Helper()
	port := func(addr string) string {
		return "port_value: " + netip.MustParseAddrPort(addr).String()[len("127.0.0.1:"):] + " "
	}
	e := readEnvoy(t, change(s.configured(t, "envoy.yaml", map[string]string{
		"port_value: 8000 ": port(
			proctest.FreeAddr(t),
		),
		"port_value: 9090 ": port(s.patd.grpc),
		"port_value: 3000 ": port(s.upstream),
	})))
	e.secret = s.patd.asker
	conn, err := grpc.NewClient(
		e.clusters[e.check.GetGrpcService().GetEnvoyGrpc().GetClusterName()],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	must(t, err)
	e.client = authv3.NewAuthorizationClient(conn)
	l, err := net.Listen("tcp", e.listen)
	must(t, err)
	server := &http.Server{Handler: e, ReadHeaderTimeout: patience}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done; conn.Close() })
	return e.listen
}

// ServeHTTP is the way of one request through the filters.
func (e *envoy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name := range r.Header {
		if e.strict && strings.Contains(name, "_") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
	}
	if written := strings.ToLower(r.URL.EscapedPath()); e.clean {
		if strings.Contains(written, "%2f") || strings.Contains(written, "%5c") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.URL.RawPath, r.URL.Path = cleaned(r.URL.EscapedPath()), cleaned(r.URL.Path)
	}
	route := e.route(r)
	if route == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if direct := route.GetDirectResponse(); direct != nil { // kept from the upstream, whatever the answer would be
		w.WriteHeader(int(direct.GetStatus()))
		return
	}
	answer, err := e.ask(r, route)
	switch {
	case err != nil && e.check.GetFailureModeAllow():
	case err != nil:
		w.WriteHeader(int(e.check.GetStatusOnError().GetCode()))
		return
	case answer.GetStatus().GetCode() != 0:
		deny(w, answer.GetDeniedResponse())
		return
	default:
		allow(r.Header, answer.GetOkResponse())
	}
	target := &url.URL{Scheme: "http", Host: e.clusters[route.GetRoute().GetCluster()]}
	// Envoy takes off Connection itself, and not what it names.
	r.Header.Del("Connection")
	(&httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) },
		ModifyResponse: func(resp *http.Response) error {
			change(resp.Header, answer.GetOkResponse().GetResponseHeadersToAdd())
			return nil
		},
	}).ServeHTTP(w, r)
}

// cleaned is a path without dots and double slashes.
func cleaned(p string) string {
	clean := path.Clean(p)
	if last := p[strings.LastIndex(p, "/")+1:]; clean != "/" && (last == "" || last == "." || last == "..") {
		clean += "/"
	}
	return clean
}

func (e *envoy) route(r *http.Request) *routev3.Route {
	for _, route := range e.routes {
		match := route.GetMatch()
		if slices.ContainsFunc(match.GetHeaders(), func(h *routev3.HeaderMatcher) bool {
			return h.GetName() != ":method" || h.GetStringMatch().GetExact() != r.Method
		}) {
			continue
		}
		if pattern := match.GetSafeRegex().GetRegex(); pattern != "" {
			if regexp.MustCompile("^(?:" + pattern + ")$").MatchString(r.URL.EscapedPath()) {
				return route
			}
		} else if strings.HasPrefix(r.URL.Path, match.GetPrefix()) {
			return route
		}
	}
	return nil
}

// ask makes the call that the filter makes. Of a header that came several times Envoy tells the values joined by
// commas.
func (e *envoy) ask(r *http.Request, route *routev3.Route) (*authv3.CheckResponse, error) {
	var per extauthzv3.ExtAuthzPerRoute
	if err := route.GetTypedPerFilterConfig()["envoy.filters.http.ext_authz"].UnmarshalTo(&per); err != nil {
		return nil, err
	}
	headers := map[string]string{}
	for name, values := range r.Header {
		name = strings.ToLower(name)
		for _, allowed := range e.check.GetAllowedHeaders().GetPatterns() {
			if name == allowed.GetExact() || allowed.GetPrefix() != "" && strings.HasPrefix(name, allowed.GetPrefix()) {
				headers[name] = strings.Join(values, ",")
			}
		}
	}
	from := netip.MustParseAddrPort(r.RemoteAddr)
	ctx, cancel := context.WithTimeout(r.Context(), e.check.GetGrpcService().GetTimeout().AsDuration())
	defer cancel()
	for _, m := range e.check.GetGrpcService().GetInitialMetadata() {
		ctx = metadata.AppendToOutgoingContext(
			ctx,
			m.GetKey(),
			strings.ReplaceAll(m.GetValue(), "%ENVIRONMENT(PATD_TOKEN)%", e.secret),
		)
	}
	return e.client.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: from.Addr().
					String(),
				PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(from.Port())},
			}}},
		},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: r.Method, Path: r.URL.RequestURI(), Host: r.Host, Headers: headers,
		}},
		ContextExtensions: per.GetCheckSettings().GetContextExtensions(),
	}})
}

// deny answers what a denied response says; without a status that is 403.
func deny(w http.ResponseWriter, d *authv3.DeniedHttpResponse) {
	change(w.Header(), d.GetHeaders())
	code := int(d.GetStatus().GetCode())
	if code == 0 {
		code = http.StatusForbidden
	}
	w.WriteHeader(code)
	_, _ = w.Write([]byte(d.GetBody()))
}

// allow changes the request as an OK response says: headers by their append action, of which the default appends; one
// with an empty value only where that is to be kept; and what is to be removed last, be it set before or not.
func allow(h http.Header, ok *authv3.OkHttpResponse) {
	change(h, ok.GetHeaders())
	for _, name := range ok.GetHeadersToRemove() {
		h.Del(name)
	}
}

// change changes headers by their append actions.
func change(h http.Header, options []*corev3.HeaderValueOption) {
	for _, option := range options {
		key, value := option.GetHeader().GetKey(), option.GetHeader().GetValue()
		if value == "" && !option.GetKeepEmptyValue() {
			continue
		}
		present := len(h.Values(key)) > 0
		switch option.GetAppendAction() {
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
			h.Set(key, value)
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
			if present {
				h.Set(key, value)
			}
		case corev3.HeaderValueOption_ADD_IF_ABSENT:
			if !present {
				h.Set(key, value)
			}
		default:
			h.Add(key, value)
		}
	}
}

func TestEnvoy(t *testing.T) {
	longtest.Only(t)
	guards(t, gateway{
		start:     startEnvoy,
		tells:     everything,
		addresses: true,
		strict:    true,
		unlisted:  http.StatusNotFound,
		stopped:   http.StatusServiceUnavailable,
		frozen:    http.StatusServiceUnavailable,
		out:       http.StatusServiceUnavailable,
	})
}
