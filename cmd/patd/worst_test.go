package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"patd/internal/patdtest"
	"patd/internal/servicetest"
	"patd/tokens/secret"
)

// payload is a text that can be of any size: a head, an item many times, and a tail.
type payload struct{ head, item, tail string }

// at is a payload of at most a size, in parts.
func (p payload) at(size int) [3][]byte {
	return [3][]byte{[]byte(p.head), many(p.item, (size-len(p.head)-len(p.tail))/len(p.item)), []byte(p.tail)}
}

// repeated are items many times, as bytes.
var repeated sync.Map

// many is an item n times, of 2 MiB at most. The bytes are shared by all that use them: they are only to be read, so
// that what a stranger sends costs the test little.
func many(item string, n int) []byte {
	all, ok := repeated.Load(item)
	if !ok {
		all, _ = repeated.LoadOrStore(item, bytes.Repeat([]byte(item), 2<<20/len(item)))
	}
	return all.([]byte)[:n*len(item)]
}

// encoded is a message on the wire: what makes it of a size, in two parts.
type encoded func(size int) (head, items []byte)

// empties are as many empty items of a list as there is room for.
func empties(tag []byte) encoded {
	item := string(append(slices.Clone(tag), 0))
	return func(size int) ([]byte, []byte) { return nil, many(item, size/len(item)) }
}

// lengthy is a text as long as there is room for.
func lengthy(tag []byte) encoded {
	return func(size int) ([]byte, []byte) {
		n := size - len(tag) - 4
		return protowire.AppendVarint(slices.Clone(tag), uint64(n)), many("x", n)
	}
}

// within is a message within a field of another.
func (e encoded) within(tag []byte) encoded {
	return func(size int) ([]byte, []byte) {
		head, items := e(size - len(tag) - 4)
		return append(protowire.AppendVarint(slices.Clone(tag), uint64(len(head)+len(items))), head...), items
	}
}

// worstOf are messages of a type that make most of their bytes: each of its lists and maps, however deep, with as many
// empty items as there is room for, and a text as long.
func worstOf(m protoreflect.MessageDescriptor, above ...protoreflect.FullName) (binary []encoded, json []payload) {
	if slices.Contains(above, m.FullName()) {
		return nil, nil
	}
	above = append(slices.Clone(above), m.FullName())
	long := false
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		tag := protowire.AppendTag(nil, f.Number(), protowire.BytesType)
		text := f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.BytesKind
		name := `{"` + string(f.Name()) + `":`
		switch {
		case f.IsMap():
			binary = append(binary, empties(tag))
			json = append(json, payload{name + "{", `"":"",`, `"x":""}}`})
		case f.IsList() && (text || f.Message() != nil):
			binary = append(binary, empties(tag))
			item := `""`
			if f.Message() != nil {
				item = "{}"
			}
			json = append(json, payload{name + "[", item + ",", item + "]}"})
		case text && !long:
			long = true
			binary = append(binary, lengthy(tag))
			json = append(json, payload{name + `"`, "x", `"}`})
		}
		if f.Message() == nil || f.IsMap() {
			continue
		}
		inner, innerJSON := worstOf(f.Message(), above...)
		for _, of := range inner {
			binary = append(binary, of.within(tag))
		}
		for _, p := range innerJSON {
			if f.IsList() {
				p.head, p.tail = name+"["+p.head, p.tail+"]}"
			} else {
				p.head, p.tail = name+p.head, p.tail+"}"
			}
			json = append(json, p)
		}
	}
	return binary, json
}

// stranger is a client with an address of its own and no good credential.
type stranger struct {
	credential string // empty: none
	large      bool   // it sends the largest message that there may be; otherwise the largest that is taken of a stranger
	zipped     bool   // it compresses what it sends over gRPC
	unmeasured bool   // it says no length of what it sends over REST
	conn       *grpc.ClientConn
	client     *http.Client
	rest       string
}

// strangers are clients of all kinds. Some compress, if they are to: that takes the test's own time.
func strangers(t *testing.T, d *daemon, compress bool) []*stranger {
	t.Helper()
	unknown, err := secret.Mint(secret.PrefixService, 1<<40, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var all []*stranger
	for i := range 8 {
		s := &stranger{large: i&2 != 0, zipped: compress && i&4 != 0, unmeasured: i&4 != 0, rest: d.HTTP}
		if i&1 != 0 {
			s.credential = "Bearer " + unknown.Reveal()
		}
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i))}}
		s.conn, err = grpc.NewClient("passthrough:///"+d.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				return from.DialContext(ctx, "tcp", addr)
			}))
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{DialContext: from.DialContext, MaxIdleConnsPerHost: 4}
		s.client = &http.Client{Transport: transport}
		t.Cleanup(func() {
			s.conn.Close()
			transport.CloseIdleConnections()
		})
		all = append(all, s)
	}
	return all
}

// worstCall is one call, with the worst message of some size, without a good credential. What becomes of it is the
// server's business.
type worstCall struct {
	endpoint string
	send     func(context.Context, *stranger)
}

// asIs is a codec of messages that are written already.
type asIs struct{}

func (asIs) Marshal(v any) (mem.BufferSlice, error) {
	var out mem.BufferSlice
	for _, part := range v.([2][]byte) {
		out = append(out, mem.SliceBuffer(part))
	}
	return out, nil
}
func (asIs) Unmarshal(mem.BufferSlice, any) error { return nil }
func (asIs) Name() string                         { return "proto" }

// overGRPC are the worst calls of a method.
func overGRPC(m protoreflect.MethodDescriptor) []worstCall {
	full := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	messages, _ := worstOf(m.Input())
	if len(messages) == 0 { // it takes none: what is not known is passed over
		messages = append(messages, empties([]byte{15<<3 | 2}))
	}
	var all []worstCall
	for _, message := range messages {
		all = append(all, worstCall{"gRPC " + full, func(ctx context.Context, s *stranger) {
			size := 64<<10 - 64
			if s.large {
				size = 2<<20 - 64
			}
			options := []grpc.CallOption{grpc.ForceCodecV2(asIs{}), grpc.WaitForReady(true)}
			if s.zipped {
				options = append(options, grpc.UseCompressor(gzip.Name))
			}
			if s.credential != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", s.credential)
			}
			stream, err := s.conn.NewStream(
				ctx,
				&grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
				full,
				options...)
			if err != nil {
				return
			}
			head, items := message(size)
			_ = stream.SendMsg([2][]byte{head, items})
			_ = stream.CloseSend()
			_ = stream.RecvMsg(nil)
		}})
	}
	return all
}

// overHTTP is a call by HTTP.
func overHTTP(method, path, contentType string, p payload) worstCall {
	route, _, _ := strings.Cut(path, "?")
	return worstCall{"REST " + method + " " + route, func(ctx context.Context, s *stranger) {
		size := 64<<10 - 64
		if s.large {
			size = 1<<20 - 64
		}
		parts := p.at(size)
		body := io.MultiReader(bytes.NewReader(parts[0]), bytes.NewReader(parts[1]), bytes.NewReader(parts[2]))
		r, err := http.NewRequestWithContext(ctx, method, s.rest+path, body)
		if err != nil {
			panic(err)
		}
		if r.ContentLength = -1; !s.unmeasured {
			r.ContentLength = int64(len(parts[0]) + len(parts[1]) + len(parts[2]))
		}
		r.Header.Set("Content-Type", contentType)
		if s.credential != "" {
			r.Header.Set("Authorization", s.credential)
		}
		if resp, err := s.client.Do(r); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}}
}

var pathVariable = regexp.MustCompile(`\{[^}]*\}`)

// overREST are the worst calls of the routes of a method.
func overREST(m protoreflect.MethodDescriptor) []worstCall {
	rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	if rule == nil {
		return nil
	}
	_, messages := worstOf(m.Input())
	messages = append(messages,
		payload{item: "{"}, payload{`{"requests":[`, "{", ""}, payload{item: "["}, payload{`{"x":`, "[", ""})
	var all []worstCall
	for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
		method, path := "", ""
		switch p := r.GetPattern().(type) {
		case *annotations.HttpRule_Get:
			method, path = http.MethodGet, p.Get
		case *annotations.HttpRule_Put:
			method, path = http.MethodPut, p.Put
		case *annotations.HttpRule_Post:
			method, path = http.MethodPost, p.Post
		case *annotations.HttpRule_Delete:
			method, path = http.MethodDelete, p.Delete
		case *annotations.HttpRule_Patch:
			method, path = http.MethodPatch, p.Patch
		}
		path = pathVariable.ReplaceAllString(path, "x")
		for _, message := range messages {
			all = append(all, overHTTP(method, path, "application/json", message))
		}
		all = append(
			all,
			overHTTP(method, path+"?"+strings.Repeat("q=a&", 6000), "application/json", payload{item: " "}),
		)
	}
	return all
}

// worstCalls are those of every endpoint there is: what the running server says it serves over gRPC, the routes of
// those methods, and the paths beside them.
func worstCalls(t *testing.T, d *daemon) []worstCall {
	t.Helper()
	var all []worstCall
	for _, m := range servedMethods(t, d) {
		all = append(all, overGRPC(m)...)
		all = append(all, overREST(m)...)
	}
	for _, path := range servedPaths(t) {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			for _, p := range []payload{{"", "a=&", "a="}, {"token=", "%41", ""}, {item: "&"}} {
				all = append(all, overHTTP(method, path, "application/x-www-form-urlencoded", p))
			}
			long := path + "?" + strings.Repeat("scope=a&", 3000)
			all = append(all, overHTTP(method, long, "application/json", payload{item: "{"}))
		}
	}
	return all
}

// servedMethods are the methods that a running server says it serves.
func servedMethods(t *testing.T, d *daemon) []protoreflect.MethodDescriptor {
	t.Helper()
	conn, err := grpc.NewClient(d.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err == nil {
		err = stream.Send(&grpc_reflection_v1.ServerReflectionRequest{
			MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{},
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var all []protoreflect.MethodDescriptor
	for _, s := range answer.GetListServicesResponse().GetService() {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(s.GetName()))
		if err != nil {
			t.Fatal(err)
		}
		methods := found.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			all = append(all, methods.Get(i))
		}
	}
	return all
}

// servedPaths are the paths that a server serves apart from the routes of methods.
func servedPaths(t *testing.T) []string {
	t.Helper()
	return patdtest.Start(t, servicetest.Options{}, nil).Server.Paths()
}

// callTime is how long a stranger waits for what becomes of a call.
const callTime = 5 * time.Second

// atOnce has each stranger make a call three times, all at once.
func atOnce(ctx context.Context, all []*stranger, c worstCall) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var calls sync.WaitGroup
	for _, s := range all {
		for range 3 {
			calls.Go(func() { c.send(ctx, s) })
		}
	}
	calls.Wait()
}
