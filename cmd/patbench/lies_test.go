package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// presented is the token that is presented to servers which lie, and anotherID the id of another.
const (
	presented = "pat_15ODq7pq8Hy_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno0QDLb0"
	anotherID = "00000000001"
)

// served are connections to a server that answers each message as answer says.
func served(t *testing.T, answer func(request []byte) ([]byte, error)) []*grpc.ClientConn {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(
		func(_ any, stream grpc.ServerStream) error {
			for {
				var q raw
				if err := stream.RecvMsg(&q); err != nil {
					return nil //nolint:nilerr // the client is done
				}
				text, err := answer(q.bytes)
				if err == nil {
					err = stream.SendMsg(&raw{text})
				}
				if err != nil {
					return err
				}
			}
		}))
	done := make(chan error, 1)
	go func() { done <- s.Serve(lis) }()
	conns, err := dial(&process{grpc: lis.Addr().String()}, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := closeAll(conns)
		s.Stop()
		if err != nil || <-done != nil {
			t.Error(err)
		}
	})
	return conns
}

// decision is an answer about a token, in wire form.
func decision(t *testing.T, d patdv1.IntrospectResponse_Decision, id string) []byte {
	t.Helper()
	allow := d == patdv1.IntrospectResponse_ALLOW
	m := &patdv1.IntrospectResponse{Active: allow, Decision: d, TokenId: id}
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// item is a field of bytes.
func item(dst []byte, number protowire.Number, text []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, number, protowire.BytesType), text)
}

// onStream is the answer to a request on a stream.
func onStream(id uint64, answer []byte) []byte {
	dst := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), id)
	if answer == nil {
		return dst
	}
	return item(dst, 2, answer)
}

// TestEachLieEndsTheRun has a server for each way to answer wrongly, in each way to ask.
func TestEachLieEndsTheRun(t *testing.T) {
	t.Parallel()
	allowed := decision(t, patdv1.IntrospectResponse_ALLOW, tokenIDOf(presented))
	another := decision(t, patdv1.IntrospectResponse_ALLOW, anotherID)
	refused := decision(t, patdv1.IntrospectResponse_NOT_FOUND, "")
	revoked := decision(t, patdv1.IntrospectResponse_REVOKED, tokenIDOf(presented))
	several := func(n int, one []byte) (all []byte) {
		for range n {
			all = item(all, 1, one)
		}
		return all
	}
	texts := []string{presented}
	unary := func(_ context.Context, conns []*grpc.ClientConn) (call, func() error, error) {
		return unaryCall(conns, "s", texts, ""), nothing, nil
	}
	batch := func(_ context.Context, conns []*grpc.ClientConn) (call, func() error, error) {
		return batchCall(conns, "s", texts, 2), nothing, nil
	}
	stream := func(ctx context.Context, conns []*grpc.ClientConn) (call, func() error, error) {
		s, err := openStreams(ctx, conns, "s")
		if err != nil {
			return nil, nil, err
		}
		return s.call(texts), s.close, nil
	}
	flood := func(_ context.Context, conns []*grpc.ClientConn) (call, func() error, error) {
		return floodCall(conns, "s", dataset{ids: []tokens.ID{1, 1000}}), nothing, nil
	}
	for name, c := range map[string]struct {
		ask    func(context.Context, []*grpc.ClientConn) (call, func() error, error)
		answer []byte
		want   string // in the error; empty: it is true
	}{
		"unary, true":      {unary, allowed, ""},
		"unary, another":   {unary, another, "wrong answer about 15ODq7pq8Hy: ALLOW " + anotherID},
		"unary, refused":   {unary, refused, "wrong answer about 15ODq7pq8Hy: NOT_FOUND"},
		"unary, revoked":   {unary, revoked, "wrong answer about 15ODq7pq8Hy: REVOKED"},
		"unary, none":      {unary, []byte{}, "wrong answer"},
		"unary, garbage":   {unary, []byte{0xff}, "wrong answer"},
		"unary, fails":     {unary, nil, "the disk is full"},
		"batch, true":      {batch, several(2, allowed), ""},
		"batch, one":       {batch, several(1, allowed), "cut short"},
		"batch, cut":       {batch, several(2, allowed)[:len(allowed)+8], "cut short"},
		"batch, another":   {batch, item(several(1, allowed), 1, another), "wrong answer"},
		"batch, fails":     {batch, nil, "the disk is full"},
		"stream, true":     {stream, onStream(2, allowed), ""},
		"stream, another":  {stream, onStream(2, another), "wrong answer"},
		"stream, unasked":  {stream, onStream(9, allowed), "a response to 9, which was not sent"},
		"stream, empty":    {stream, []byte{}, "cut short"},
		"stream, nothing":  {stream, onStream(2, nil), "the answer to 2 holds no decision"},
		"stream, fails":    {stream, nil, "the disk is full"},
		"flood, true":      {flood, several(floodSize, notFound), ""},
		"flood, one found": {flood, several(floodSize, allowed), "the answer to a made-up token is 0801"},
		"flood, too few":   {flood, several(floodSize-1, notFound), "cut short"},
		"flood, too many":  {flood, several(floodSize+1, notFound), "more than was asked"},
		"flood, fails":     {flood, nil, "the disk is full"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := true
			conns := served(t, func(q []byte) ([]byte, error) {
				if first && bytes.HasPrefix(q, onStream(1, nil)) {
					first = false
					return onStream(1, refused), nil // to the probe of a stream
				}
				if c.answer == nil {
					return nil, status.Error(codes.Unavailable, "the disk is full")
				}
				return c.answer, nil
			})
			ask, end, err := c.ask(t.Context(), conns)
			if err != nil {
				t.Fatal(err)
			}
			_, err = ask(t.Context(), 0, rand.New(rand.NewPCG(1, 1)))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err := end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// quick is a bench of one short round, without servers.
func quick(out *bytes.Buffer) *bench {
	return &bench{
		settings: settings{rounds: 1, conns: 1, inFlight: counts{1}, period: time.Millisecond, tokens: 1},
		out:      out, texts: []string{presented}, echoToken: []string{presented},
	}
}

// TestWhatIsNotServedIsLeftOut holds that a server without streams or a path costs the table a line, and that one which
// fails ends the run.
func TestWhatIsNotServedIsLeftOut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		grpc codes.Code
		http int
		ends bool
	}{{codes.Unimplemented, http.StatusNotFound, false}, {codes.Internal, http.StatusInternalServerError, true}} {
		var out bytes.Buffer
		b := quick(&out)
		b.conns = served(t, func([]byte) ([]byte, error) { return nil, status.Error(c.grpc, "so") })
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"active":true,"token_id":"15ODq7pq8Hy"}`, c.http)
		}))
		defer web.Close()
		b.server, b.echo = &process{http: web.URL}, &process{http: web.URL}
		for row, run := range map[string]func(*bench, context.Context) error{
			"IntrospectStream": (*bench).stream, "/v1/introspect": (*bench).rest, "/oauth2/introspect": (*bench).oauth,
		} {
			err := run(b, t.Context())
			if noted := strings.Contains(
				out.String(),
				row+" is not served\n",
			); (err != nil) != c.ends ||
				noted == c.ends {
				t.Errorf("%s, status %d: %v\n%s", row, c.http, err, &out)
			}
		}
	}
}

// TestHTTPAnswersAreChecked holds that an answer which refuses, is about another token or breaks off does not pass.
func TestHTTPAnswersAreChecked(t *testing.T) {
	t.Parallel()
	bodies := []string{
		`{"active":true,"token_id":"15ODq7pq8Hy"}`, `{"active":false,"token_id":"15ODq7pq8Hy"}`,
		`{"active":true,"token_id":"00000000001"}`, "", "broken",
	}
	var errs []bool
	for _, body := range bodies {
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer s" || r.PostFormValue("token") != presented {
				http.Error(w, "asked otherwise", http.StatusBadRequest)
				return
			}
			if body == "broken" {
				w.Header().Set("Content-Length", "100")
			}
			_, _ = w.Write([]byte(body))
		}))
		client := httpClient(1)
		ask := httpCall(client, web.URL, "s", "application/x-www-form-urlencoded", formBody, []string{presented}, "")
		_, err := ask(t.Context(), 0, rand.New(rand.NewPCG(1, 1)))
		errs = append(errs, err != nil)
		client.CloseIdleConnections()
		web.Close()
	}
	if want := []bool{false, true, true, true, true}; !slices.Equal(errs, want) {
		t.Errorf("refused: %v, want %v", errs, want)
	}
}
