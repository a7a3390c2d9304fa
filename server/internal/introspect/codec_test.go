package introspect

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/server/internal/httpx"
	"patd/tokens"
)

// anything fills a value with what its type can hold, by chance: also fields that nobody has thought of here.
func anything(r *rand.Rand, v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		if r.IntN(4) > 0 {
			nanos := []int64{0, 1, 1000, 999_000_000, 123_456_789, 120_000_000}[r.IntN(6)]
			*x = time.Unix(r.Int64N(1<<34)-1<<32, nanos).UTC()
		}
		return
	case *time.Duration:
		*x = []time.Duration{0, 1, time.Second, 90 * time.Minute, 1234567 * time.Microsecond, 180*tokens.Day + 1}[r.IntN(6)]
		return
	case *tokens.Decision:
		*x = tokens.Decision(r.IntN(12))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				anything(r, v.Field(i))
			}
		}
	case reflect.String:
		v.SetString(
			[]string{"", "a", "reports.read", `q"<>&'\`, "größer ☃ \u2028", "\x7f", string(bytes.Repeat([]byte("x"), r.IntN(200)))}[r.IntN(7)],
		)
	case reflect.Slice:
		for range r.IntN(4) {
			e := reflect.New(v.Type().Elem()).Elem()
			anything(r, e)
			v.Set(reflect.Append(v, e))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(4) {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			anything(r, k)
			anything(r, e)
			v.SetMapIndex(k, e)
		}
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Uint64:
		v.SetUint(r.Uint64() >> r.IntN(64))
	case reflect.Int64, reflect.Int:
		v.SetInt(r.Int64() >> r.IntN(64))
	case reflect.Pointer, reflect.Interface, reflect.Uint8, reflect.Uintptr, reflect.Array: // nothing that is told
	}
}

func someIntrospection(r *rand.Rand) *tokens.Introspection {
	in := &tokens.Introspection{}
	anything(r, reflect.ValueOf(in).Elem())
	return in
}

func wireForm(t testing.TB, c Codec, v any) []byte {
	t.Helper()
	b, err := c.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	return b.Materialize()
}

func generated(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAnswersAreWrittenAsTheGeneratedCodeDoes compares bytes, of answers that hold anything.
func TestAnswersAreWrittenAsTheGeneratedCodeDoes(t *testing.T) {
	longtest.Slow(t)
	c := NewCodec()
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		in := someIntrospection(r)
		if got, want := wireForm(
			t,
			c,
			&introspection{*in},
		), generated(
			t,
			toIntrospection(in),
		); !bytes.Equal(
			got,
			want,
		) {
			t.Fatalf("seed %d: %x, want %x", seed, got, want)
		}
		id := r.Uint64() >> r.IntN(64)
		got := wireForm(t, c, &streamResponse{id: id, answer: in})
		want := generated(
			t,
			&patdv1.IntrospectStreamResponse{
				Id:     id,
				Result: &patdv1.IntrospectStreamResponse_Response{Response: toIntrospection(in)},
			},
		)
		if !bytes.Equal(got, want) {
			t.Fatalf("seed %d, on a stream: %x, want %x", seed, got, want)
		}
		failed := tokens.Fail(tokens.CodeUnavailable, "STORE_UNAVAILABLE", in.Token.Name)
		got = wireForm(t, c, &streamResponse{id: id, failed: failed, code: 14})
		want = generated(t, &patdv1.IntrospectStreamResponse{Id: id, Result: &patdv1.IntrospectStreamResponse_Error_{
			Error: &patdv1.IntrospectStreamResponse_Error{Code: 14, Reason: failed.Reason, Message: failed.Message},
		}})
		if !bytes.Equal(got, want) {
			t.Fatalf("seed %d, an error on a stream: %x, want %x", seed, got, want)
		}
		batch, list := &batchResponse{batchTexts.Get(0)}, &patdv1.BatchIntrospectResponse{}
		for range r.IntN(20) {
			in := someIntrospection(r)
			*batch.text = appendBatchItem(*batch.text, in)
			list.Responses = append(list.Responses, toIntrospection(in))
		}
		if got, want := wireForm(t, c, batch), generated(t, list); !bytes.Equal(got, want) {
			t.Fatalf("seed %d, a batch: %x, want %x", seed, got, want)
		}
	}
}

// TestAnswersAreWrittenAsTheGatewayDoes does so for JSON.
func TestAnswersAreWrittenAsTheGatewayDoes(t *testing.T) {
	d, plain := NewDirect(nil, httpx.Senders{}), 0
	for seed := range uint64(5000) {
		in := someIntrospection(rand.New(rand.NewPCG(seed, 2)))
		if seed%2 == 0 { // as they really are
			in.Token.User, in.Token.Name, in.Token.Labels = "user-1", "deploy <prod> & 'test'", map[string]string{
				"team": "a",
				"env":  "b",
			}
			for _, list := range []*[]string{&in.Effective, &in.Suspended, &in.Missing, &in.Granted, &in.Audiences} {
				*list = slices.DeleteFunc(*list, func(s string) bool { return s != "a" && s != "reports.read" })
			}
			in.Decision = tokens.Allow
		}
		want, err := d.codec.Marshal(toIntrospection(in))
		got, gotErr := d.append(nil, in)
		if err != nil || gotErr != nil {
			if (err == nil) != (gotErr == nil) {
				t.Fatalf("seed %d: %v, want %v", seed, gotErr, err)
			}
			continue // times outside of what JSON can tell
		}
		if diff := cmp.Diff(string(bytes.TrimSuffix(want, []byte("\n"))), string(got)); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
		if _, ok := appendJSON(nil, in); ok {
			plain++
		}
	}
	if plain < 1000 {
		t.Errorf("only %d answers took the direct way", plain)
	}
}

func sameRequest(t *testing.T, what string, q *request, m *patdv1.IntrospectRequest) {
	t.Helper()
	got := fmt.Sprintf("%q %q %q %q", q.token, q.audience, q.clientIP, q.required)
	if want := fmt.Sprintf(
		"%q %q %q %q",
		m.GetToken(),
		m.GetAudience(),
		m.GetClientIp(),
		m.GetRequiredScopes(),
	); got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// FuzzQuestionsAreReadAsTheGeneratedCodeDoes has both read anything.
func FuzzQuestionsAreReadAsTheGeneratedCodeDoes(f *testing.F) {
	one := &patdv1.IntrospectRequest{
		Token:          "pat_x",
		Audience:       "api",
		RequiredScopes: []string{"a", "b", "", "d", "e", "f"},
		ClientIp:       "192.0.2.1",
	}
	for _, m := range []proto.Message{
		one, &patdv1.IntrospectRequest{}, &patdv1.IntrospectRequest{Token: "größer"},
		&patdv1.IntrospectStreamRequest{Id: 1 << 60, Request: one}, &patdv1.IntrospectStreamRequest{Id: 5}, &patdv1.IntrospectStreamRequest{Request: &patdv1.IntrospectRequest{}},
		&patdv1.BatchIntrospectRequest{Requests: []*patdv1.IntrospectRequest{one, {}, one}}, &patdv1.IntrospectResponse{Active: true, Sequence: 4},
	} {
		b := generated(f, m)
		f.Add(b)
		f.Add(append(b, b...))
		f.Add(append(b, 0xff))
		f.Add(append([]byte{0x0a, 2, 0xff, 0xfe}, b...))
	}
	c := NewCodec()
	read := func(b []byte, v any) error { return c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, v) }
	f.Fuzz(func(t *testing.T, b []byte) {
		var q request
		var m patdv1.IntrospectRequest
		err, want := read(b, &q), proto.Unmarshal(b, &m)
		if (err == nil) != (want == nil) {
			t.Fatalf("%v, want %v", err, want)
		} else if err == nil {
			sameRequest(t, "one", &q, &m)
		}
		var sq streamRequest
		var sm patdv1.IntrospectStreamRequest
		err, want = read(b, &sq), proto.Unmarshal(b, &sm)
		if (err == nil) != (want == nil) {
			t.Fatalf("on a stream: %v, want %v", err, want)
		} else if err == nil {
			sameRequest(t, "on a stream", &sq.request, sm.GetRequest())
			if sq.id != sm.GetId() {
				t.Errorf("id %d, want %d", sq.id, sm.GetId())
			}
		}
		var bq batchRequest
		var bm patdv1.BatchIntrospectRequest
		err, want = read(b, &bq), proto.Unmarshal(b, &bm)
		if (err == nil) != (want == nil) || err == nil && len(bq.items) != len(bm.GetRequests()) {
			t.Fatalf("a batch: %v, want %v", err, want)
		} else if err == nil {
			for i := range bq.items {
				sameRequest(t, "in a batch", &bq.items[i], bm.GetRequests()[i])
			}
		}
	})
}

// FuzzPlainJSONIsReadAsTheGatewayDoes has both read anything; what is not plain is left to the gateway.
func FuzzPlainJSONIsReadAsTheGatewayDoes(f *testing.F) {
	for _, text := range []string{
		`{"token":"pat_x"}`, ` { "token" : "a" , "audience":"b","required_scopes":["x" , "y"],"client_ip":"::1"} `, `{}`, `{"required_scopes":[]}`,
		`{"token":"a","token":"b"}`, `{"token":null}`, `{"token":"a",}`, `{"token":"\u0041"}`, `{"requiredScopes":["a"]}`, `{"token":"a"}x`, `{"unknown":1}`,
		`{"requests":[]}`, `{"requests":[{"token":"a"},{"token":"b","required_scopes":["{","}"]}]}`, `{"requests":[{"token":"a"}],"requests":[]}`, `[`, `{"token":"a`,
		`{"required_scopes":["a",]}`, `{"requests":[{}]}`,
	} {
		f.Add(text)
	}
	c := httpx.NewJSONCodec()
	f.Fuzz(func(t *testing.T, text string) {
		var q request
		if p := (parser{text}); p.request(&q) && p.end() {
			var m patdv1.IntrospectRequest
			if err := c.UnmarshalOptions.Unmarshal([]byte(text), &m); err != nil {
				t.Fatalf("%q is not for the direct way: %v", text, err)
			}
			sameRequest(t, text, &q, &m)
		}
		var bq batchRequest
		if p := (parser{text}); p.batch(&bq) && p.end() {
			var m patdv1.BatchIntrospectRequest
			if err := c.UnmarshalOptions.Unmarshal(
				[]byte(text),
				&m,
			); err != nil ||
				len(m.GetRequests()) != len(bq.items) {
				t.Fatalf("%q is not for the direct way: %v", text, err)
			}
			for i := range bq.items {
				sameRequest(t, text, &bq.items[i], m.GetRequests()[i])
			}
		}
	})
}
