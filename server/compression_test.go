package server_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
)

// framed is an answer over gRPC as it came over HTTP/2: the status, and the message where there is one.
type framed struct {
	code, encoding, message string
	compressed              bool
	body                    []byte
}

// sendFramed sends one message in an encoding that no client library knows.
func (r *rig) sendFramed(method, credential, encoding string, compressed bool, message []byte) framed {
	r.t.Helper()
	plain := &http.Transport{Protocols: &http.Protocols{}}
	plain.Protocols.SetUnencryptedHTTP2(true)
	defer plain.CloseIdleConnections()
	prefix := make([]byte, 5, 5+len(message))
	if compressed {
		prefix[0] = 1
	}
	binary.BigEndian.PutUint32(prefix[1:], uint32(len(message)))
	req, err := http.NewRequestWithContext(
		context.Background(),
		http.MethodPost,
		"http://"+r.srv.GRPCAddr()+method,
		bytes.NewReader(append(prefix, message...)),
	)
	must(r.t, err)
	for name, value := range map[string]string{"Content-Type": "application/grpc", "Te": "trailers", "Grpc-Encoding": encoding, "Authorization": "Bearer " + credential} {
		req.Header.Set(name, value)
	}
	resp, err := plain.RoundTrip(req)
	must(r.t, err)
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	must(r.t, err)
	out := framed{
		code:     resp.Trailer.Get("Grpc-Status"),
		message:  resp.Trailer.Get("Grpc-Message"),
		encoding: resp.Header.Get("Grpc-Encoding"),
	}
	if out.code == "" {
		out.code, out.message = resp.Header.Get("Grpc-Status"), resp.Header.Get("Grpc-Message")
	}
	if len(all) >= 5 {
		out.compressed, out.body = all[0] != 0, all[5:]
	}
	return out
}

// TestEncodingsInUseElsewhereAreLoggedCountedAndDenied sends messages in encodings that are not supported.
func TestEncodingsInUseElsewhereAreLoggedCountedAndDenied(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const check, introspect = "/envoy.service.auth.v3.Authorization/Check", "/patd.v1.IntrospectionService/Introspect"
	e := envoy{r: r, secret: r.admin}
	request, err := proto.Marshal(e.request(routed{}))
	must(t, err)
	for _, encoding := range []string{"snappy", "zstd", "br", "x-gzip"} {
		for _, credential := range []string{r.admin, "none"} {
			for _, compressed := range []bool{true, false} {
				got := r.sendFramed(check, credential, encoding, compressed, request)
				var resp authv3.CheckResponse
				if got.code != "0" || got.compressed || proto.Unmarshal(got.body, &resp) != nil ||
					resp.GetDeniedResponse() == nil {
					t.Errorf("Check in %s, compressed %v: %+v, want a denial", encoding, compressed, got)
				}
			}
		}
		for _, method := range []string{introspect, "/patd.v1.UserService/GetUser", "/patd.v1.LeakService/ReportLeaks", "/patd.v1.IntrospectionService/IntrospectStream"} {
			r.logs.reset()
			got := r.sendFramed(method, r.admin, encoding, true, []byte("x"))
			if got.code != "12" || !strings.Contains(got.message, "gzip") {
				t.Errorf("%s in %s: %+v", method, encoding, got)
			}
			if lines := r.logs.find(map[string]any{"method": method[1:], "code": "UNIMPLEMENTED"}); len(lines) != 1 {
				t.Errorf("%s in %s: %s", method, encoding, r.logs)
			}
		}
	}
	wantMetric(t, r, `patd_calls_total{code="UNIMPLEMENTED",method="`+introspect[1:]+`"} 4`)
	wantMetric(t, r, `patd_calls_total{code="UNIMPLEMENTED",method="`+check[1:]+`"} 4`)
}

// TestDeflateIsTakenOverGRPC is for libraries that build on gRPC's core in C, Envoy among them.
func TestDeflateIsTakenOverGRPC(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	in := patdv1.NewIntrospectionServiceClient(r.conn)
	_, secret := r.mint("u1", "n")
	for range 3 {
		resp, err := in.Introspect(r.asAdmin(), &patdv1.IntrospectRequest{Token: secret}, grpc.UseCompressor("deflate"))
		if err != nil || resp.GetDecision() != patdv1.IntrospectResponse_ALLOW {
			t.Errorf("%v, %v", resp, err)
		}
	}
	bomb := &patdv1.IntrospectRequest{Token: strings.Repeat("x", 16<<20)}
	if _, err := in.Introspect(
		r.asAdmin(),
		bomb,
		grpc.UseCompressor("deflate"),
	); status.Code(
		err,
	) != codes.ResourceExhausted {
		t.Errorf("16 MiB in 16 KiB: %v", err)
	}
	if got := r.sendFramed(
		"/patd.v1.IntrospectionService/Introspect",
		r.admin,
		"deflate",
		true,
		[]byte("garbage"),
	); got.code != "3" {
		t.Errorf("what is not deflated: %+v", got)
	}
}
