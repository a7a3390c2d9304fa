package client_test

import (
	"context"
	"crypto/rand"
	"os"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"patd/client"
	patdv1 "patd/gen/patd/v1"
	"patd/tokens/secret"
)

// everyOther is a connection to a patd that knows every other token that it is asked about. Each has a user of its own.
type everyOther struct{ asked uint64 }

// Invoke answers a question about a token.
func (c *everyOther) Invoke(_ context.Context, method string, in, out any, _ ...grpc.CallOption) error {
	r, isAnswer := out.(*patdv1.IntrospectResponse)
	q, isQuestion := in.(*patdv1.IntrospectRequest)
	if !isAnswer || !isQuestion {
		return status.Error(codes.Unimplemented, method)
	}
	c.asked++
	r.Decision = patdv1.IntrospectResponse_NOT_FOUND
	if c.asked%2 == 0 {
		r.Active, r.Decision, r.AnyClientIp = true, patdv1.IntrospectResponse_ALLOW, true
		r.TokenId, r.User, r.Scopes, r.Sequence = q.GetToken()[4:15], "user-"+q.GetToken()[16:36], []string{"read"}, 1
	}
	return nil
}

// NewStream begins a watch, and nothing else.
func (c *everyOther) NewStream(
	ctx context.Context,
	_ *grpc.StreamDesc,
	method string,
	_ ...grpc.CallOption,
) (grpc.ClientStream, error) {
	if method != patdv1.IntrospectionService_WatchInvalidations_FullMethodName {
		return nil, status.Error(codes.Unimplemented, method)
	}
	return &beats{ctx: ctx}, nil
}

// beats is a watch of heartbeats.
type beats struct {
	grpc.ClientStream
	ctx   context.Context
	begun bool
}

// Header returns none.
func (b *beats) Header() (metadata.MD, error) { return metadata.MD{}, nil }

// SendMsg takes the request.
func (b *beats) SendMsg(any) error { return nil }

// CloseSend ends the request.
func (b *beats) CloseSend() error { return nil }

// RecvMsg returns a heartbeat a second.
func (b *beats) RecvMsg(m any) error {
	news, is := m.(*patdv1.WatchInvalidationsResponse)
	if !is {
		return status.Error(codes.Internal, "it is no watch")
	}
	news.Sequence, news.History, news.StartOver = 1, "h", !b.begun
	if b.begun {
		select {
		case <-b.ctx.Done():
			return b.ctx.Err()
		case <-time.After(time.Second):
		}
	}
	b.begun = true
	return nil
}

// TestDifferentTokensLeaveNothing has 50 000 different tokens checked, or PATD_TOKENS of them, half of them active.
func TestDifferentTokensLeaveNothing(t *testing.T) {
	tokens, err := strconv.Atoi(os.Getenv("PATD_TOKENS"))
	if err != nil {
		tokens = 50_000
	}
	const bound = 1000
	v, err := client.New(&everyOther{}, client.Config{MaxEntries: bound, ReportEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	now := time.Now()
	check := func(n int) {
		for range n {
			id, err := secret.NewID(now, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			made, err := secret.Mint(secret.PrefixPersonal, id, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(t.Context(), made.Reveal(), client.Call{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for deadline := time.Now().Add(time.Minute); !v.Stats().Watching; check(1) {
		if time.Now().After(deadline) {
			t.Fatal("the watch does not begin")
		}
	}
	check(tokens / 10)
	tenth := heap()
	check(tokens - tokens/10)
	end, entries := heap(), v.Stats().Entries
	t.Logf("%d bytes after %d tokens, %d after %d, of which memory holds %d", tenth, tokens/10, end, tokens, entries)
	// The tables have parts, and each may be full.
	if entries == 0 || entries > 2*bound || end > tenth+1<<20 {
		t.Errorf("%d entries; the heap grew from %d to %d bytes", entries, tenth, end)
	}
}
