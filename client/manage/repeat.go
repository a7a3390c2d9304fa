package manage

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	// firstPause is the pause after the first attempt. Each further one is twice as long.
	firstPause = 100 * time.Millisecond
	// keyHeader is the metadata key of an idempotency key.
	keyHeader = "idempotency-key"
)

// Invoke makes a call, and repeats it while that may help.
func (s *safe) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	args, key, err := keyed(ctx, args)
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		err := s.try(ctx, method, args, reply, opts)
		if err == nil {
			return nil
		}
		failed := errorOf(err)
		failed.Attempts, failed.IdempotencyKey = attempt, key
		pause, again := s.pause(failed, attempt)
		if !again || !waited(ctx, pause) {
			return failed
		}
	}
}

// try makes one attempt.
func (s *safe) try(ctx context.Context, method string, args, reply any, opts []grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, s.config.AttemptTimeout)
	defer cancel()
	if m, ok := reply.(proto.Message); ok {
		proto.Reset(m)
	}
	return s.conn.Invoke(ctx, method, args, reply, opts...)
}

// pause returns how long to wait before the next attempt; false: there shall be none.
func (s *safe) pause(failed *Error, attempt int) (time.Duration, bool) {
	if attempt >= s.config.Attempts {
		return 0, false
	}
	switch failed.Code {
	case codes.Unavailable, codes.DeadlineExceeded:
	case codes.ResourceExhausted: // too often, or too much: only the first passes by itself
		if failed.RetryAfter <= 0 {
			return 0, false
		}
	default:
		return 0, false
	}
	pause := min(firstPause<<min(attempt-1, 16), s.config.MaxPause)
	pause = pause/2 + mathrand.N(pause/2) //nolint:gosec // there is nothing to gain by guessing it
	if failed.RetryAfter > s.config.MaxPause {
		return 0, false
	}
	return max(pause, failed.RetryAfter), true
}

// waited waits; false: the context ended, or would end meanwhile.
func waited(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}

// keyed returns a request with an idempotency key, if it takes one: the caller's, or a new one in a copy.
func keyed(ctx context.Context, args any) (_ any, key string, err error) {
	m, ok := args.(proto.Message)
	if !ok {
		return args, "", nil
	}
	field := m.ProtoReflect().Descriptor().Fields().ByName("request_id")
	if field == nil {
		return args, "", nil
	}
	if key := m.ProtoReflect().Get(field).String(); key != "" {
		return args, key, nil
	}
	if md, ok := metadata.FromOutgoingContext(ctx); ok && len(md.Get(keyHeader)) > 0 {
		return args, md.Get(keyHeader)[0], nil
	}
	if key, err = newKey(); err != nil {
		return nil, "", err
	}
	m = proto.Clone(m)
	m.ProtoReflect().Set(field, protoreflect.ValueOfString(key))
	return m, key, nil
}

// newKey makes a UUIDv4.
func newKey() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", status.Error(codes.Internal, "make an idempotency key: there is no randomness")
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}
