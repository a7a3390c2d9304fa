package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
)

// raw is a message as it stands on the wire: what the load costs this process is the same for both that are compared,
// and little.
type raw struct{ bytes []byte }

// rawCodec passes raw messages on.
type rawCodec struct{}

var _ encoding.CodecV2 = rawCodec{}

// Name implements encoding.CodecV2: on the wire these are protobuf messages.
func (rawCodec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*raw)
	if !ok {
		return nil, fmt.Errorf("marshal %T: only raw messages", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(m.bytes)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*raw)
	if !ok {
		return fmt.Errorf("unmarshal %T: only raw messages", v)
	}
	m.bytes = append(m.bytes[:0], data.Materialize()...)
	return nil
}

// dial opens the connections to a server.
func dial(p *process, n int) ([]*grpc.ClientConn, error) {
	conns := make([]*grpc.ClientConn, n)
	for i := range conns {
		var err error
		conns[i], err = grpc.NewClient(p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
	}
	return conns, nil
}

// bearer puts a credential into an outgoing context.
func bearer(ctx context.Context, secret string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs("authorization", "Bearer "+secret))
}

// requestOf is an IntrospectRequest that presents a token.
func requestOf(dst []byte, token string) []byte {
	dst = protowire.AppendTag(dst, 1, protowire.BytesType)
	return protowire.AppendString(dst, token)
}

// allowedHead is how an answer begins that is active and ALLOW.
var allowedHead = []byte{1 << 3, 1, 2 << 3, byte(patdv1.IntrospectResponse_ALLOW)}

// tokenIDOf is the id that stands in a token's text (docs/guarantees.md section 2).
func tokenIDOf(token string) string { return token[4:15] }

// checkAnswer wants an answer that allows, and to be about the token.
func checkAnswer(answer []byte, tokenID string) error {
	if !bytes.HasPrefix(answer, allowedHead) || !bytes.Contains(answer, []byte(tokenID)) {
		var m patdv1.IntrospectResponse
		err := proto.Unmarshal(answer, &m)
		return errors.Join(fmt.Errorf("wrong answer about %s: %s %s", tokenID, m.GetDecision(), m.GetTokenId()), err)
	}
	return nil
}

// echoTokenID is what echo's answers are about.
var echoTokenID = echoAnswer().GetTokenId()

// unaryCall introspects one token a call. wantID empty: the token's own.
func unaryCall(conns []*grpc.ClientConn, secret string, texts []string, wantID string) call {
	return func(ctx context.Context, worker int, rnd *rand.Rand) (int, error) {
		token := texts[rnd.IntN(len(texts))]
		var answer raw
		err := conns[worker%len(conns)].Invoke(
			bearer(ctx, secret),
			patdv1.IntrospectionService_Introspect_FullMethodName,
			&raw{requestOf(make([]byte, 0, 80), token)},
			&answer,
			grpc.ForceCodecV2(rawCodec{}),
		)
		if err != nil {
			return 0, err
		}
		if wantID == "" {
			return 1, checkAnswer(answer.bytes, tokenIDOf(token))
		}
		return 1, checkAnswer(answer.bytes, wantID)
	}
}

// batchCall introspects n tokens a call.
func batchCall(conns []*grpc.ClientConn, secret string, texts []string, n int) call {
	return batchOf(conns, secret, func(rnd *rand.Rand) string { return texts[rnd.IntN(len(texts))] }, n)
}

func batchOf(conns []*grpc.ClientConn, secret string, next func(*rand.Rand) string, n int) call {
	return func(ctx context.Context, worker int, rnd *rand.Rand) (int, error) {
		request, chosen := make([]byte, 0, n*80), make([]string, n)
		for i := range n {
			chosen[i] = next(rnd)
			request = protowire.AppendTag(request, 1, protowire.BytesType)
			request = protowire.AppendBytes(request, requestOf(make([]byte, 0, 80), chosen[i]))
		}
		var answer raw
		err := conns[worker%len(conns)].Invoke(
			bearer(ctx, secret),
			patdv1.IntrospectionService_BatchIntrospect_FullMethodName,
			&raw{request},
			&answer,
			grpc.ForceCodecV2(rawCodec{}),
		)
		if err != nil {
			return 0, err
		}
		rest := answer.bytes
		for _, token := range chosen {
			_, _, tagged := protowire.ConsumeTag(rest)
			if tagged < 0 {
				return 0, errors.New("a batch's answer is cut short")
			}
			one, size := protowire.ConsumeBytes(rest[tagged:])
			if size < 0 {
				return 0, errors.New("a batch's answer is cut short")
			}
			if err := checkAnswer(one, tokenIDOf(token)); err != nil {
				return 0, err
			}
			rest = rest[tagged+size:]
		}
		return n, nil
	}
}

// errNotServed is that a server does not have a path.
var errNotServed = errors.New("it is not served")

// httpCall posts a token. want must stand in the answer; empty: the token's id.
func httpCall(
	client *http.Client,
	url, secret, contentType string,
	body func(token string) string,
	texts []string,
	want string,
) call {
	buffers := sync.Pool{New: func() any { return new(bytes.Buffer) }}
	return func(ctx context.Context, _ int, rnd *rand.Rand) (int, error) {
		token := texts[rnd.IntN(len(texts))]
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body(token)))
		if err != nil {
			return 0, err
		}
		request.Header.Set("Authorization", "Bearer "+secret)
		request.Header.Set("Content-Type", contentType)
		response, err := client.Do(request)
		if err != nil {
			return 0, err
		}
		text, _ := buffers.Get().(*bytes.Buffer)
		defer buffers.Put(text)
		text.Reset()
		_, err = io.Copy(text, response.Body)
		if err = errors.Join(err, response.Body.Close()); err != nil {
			return 0, err
		}
		if response.StatusCode == http.StatusNotFound {
			return 0, fmt.Errorf("%w: %s", errNotServed, response.Status)
		}
		about := want
		if about == "" {
			about = tokenIDOf(token)
		}
		if response.StatusCode != http.StatusOK || !bytes.Contains(text.Bytes(), []byte(`"active":true`)) ||
			!bytes.Contains(text.Bytes(), []byte(about)) {
			return 0, fmt.Errorf("wrong answer about %s: %s %s", about, response.Status, text)
		}
		return 1, nil
	}
}

func jsonBody(token string) string { return `{"token":"` + token + `"}` }

func formBody(token string) string { return "token=" + url.QueryEscape(token) }

// httpClient keeps a connection for each call in flight.
func httpClient(conns int) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxConnsPerHost: conns, MaxIdleConnsPerHost: conns}}
}
