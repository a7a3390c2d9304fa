package client_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"patd/client"
	patdv1 "patd/gen/patd/v1"
)

// listening is a server that remembers the last credential.
type listening struct {
	patdv1.UnimplementedIntrospectionServiceServer
	got atomic.Value
}

func (l *listening) Introspect(ctx context.Context, _ *patdv1.IntrospectRequest) (*patdv1.IntrospectResponse, error) {
	l.got.Store(strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ","))
	return &patdv1.IntrospectResponse{}, nil
}

func listen(t *testing.T) (*listening, string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, rpc := grpc.NewServer(), &listening{}
	patdv1.RegisterIntrospectionServiceServer(s, rpc)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return rpc, l.Addr().String()
}

const marker = "pats_marker"

func source(context.Context) (string, error) { return marker, nil }

func ask(t *testing.T, addr string, c client.Credential, options ...grpc.DialOption) error {
	conn, err := client.Dial(addr, c, options...)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = patdv1.NewIntrospectionServiceClient(conn).Introspect(t.Context(), &patdv1.IntrospectRequest{})
	if err != nil && strings.Contains(err.Error(), marker) {
		t.Errorf("the error holds the token: %v", err)
	}
	return err
}

func TestServiceTokenCrossesNoPlainConnection(t *testing.T) {
	rpc, addr := listen(t)
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	if err := ask(t, addr, client.ServiceToken(source)); err != nil || rpc.got.Load() != "Bearer "+marker {
		t.Errorf("to this machine: %v, %v", err, rpc.got.Load())
	}
	rpc.got.Store("")
	if err := ask(t, addr, client.ServiceToken(source), plain); err == nil || rpc.got.Load() != "" {
		t.Errorf("over a connection in plain text that may lead anywhere: %v, %v", err, rpc.got.Load())
	}
	if err := ask(
		t,
		addr,
		client.ServiceToken(source).AllowPlaintext(),
		plain,
	); err != nil ||
		rpc.got.Load() != "Bearer "+marker {
		t.Errorf("where that is allowed: %v, %v", err, rpc.got.Load())
	}
	if err := ask(t, strings.Replace(addr, "127.0.0.1", "127.0.0.1.", 1), client.ServiceToken(source)); err == nil {
		t.Error("a name that is not this machine's is spoken to in plain text")
	}
}

func TestServiceTokenIsReadAnewAndChecked(t *testing.T) {
	rpc, addr := listen(t)
	path := filepath.Join(t.TempDir(), "token")
	c := client.ServiceToken(client.TokenFile(path))
	if err := ask(t, addr, c); err == nil {
		t.Error("without a file there is a call")
	}
	for content, want := range map[string]string{"pats_a\n": "Bearer pats_a", "pats_b\r\n": "Bearer pats_b", "pats_c": "Bearer pats_c"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ask(t, addr, c); err != nil || rpc.got.Load() != want {
			t.Errorf("%q: %v, %v", content, err, rpc.got.Load())
		}
	}
	rpc.got.Store("")
	for name, content := range map[string]string{"empty": "\n", "two": marker + "\n" + marker + "\n", "blanks": marker + " ", "long": strings.Repeat("a", 300)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ask(t, addr, c); err == nil || rpc.got.Load() != "" {
			t.Errorf("%s: it is sent", name)
		}
	}
	fails := client.ServiceToken(func(context.Context) (string, error) { return "", errors.New("no vault") })
	if err := ask(t, addr, fails); status.Code(err) == codes.OK {
		t.Error("without a token there is a call")
	}
}
