package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	patdv1 "patd/gen/patd/v1"
)

// streams is one IntrospectStream on each connection, which many workers share.
type streams struct{ all []*stream }

// stream passes answers on to the workers whose requests they answer: a request's id is its worker's number.
type stream struct {
	rpc     grpc.ClientStream
	end     context.CancelFunc
	send    chan []byte
	mu      sync.Mutex
	waiting map[uint64]chan []byte
	done    chan struct{} // closed when the receiver has ended
	err     error
}

func openStreams(ctx context.Context, conns []*grpc.ClientConn, secret string) (*streams, error) {
	all := &streams{}
	for _, conn := range conns {
		ctx, cancel := context.WithCancel(bearer(ctx, secret))
		rpc, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
			patdv1.IntrospectionService_IntrospectStream_FullMethodName, grpc.ForceCodecV2(rawCodec{}))
		if err == nil {
			// One call shows whether the stream is served.
			err = errors.Join(rpc.SendMsg(&raw{streamRequest(nil, 1, "probe")}))
		}
		if err == nil {
			err = rpc.RecvMsg(&raw{})
		}
		if err != nil {
			cancel()
			return nil, errors.Join(err, all.close())
		}
		s := &stream{
			rpc:     rpc,
			end:     cancel,
			send:    make(chan []byte, 256),
			waiting: map[uint64]chan []byte{},
			done:    make(chan struct{}),
		}
		go s.sender()
		go s.receiver()
		all.all = append(all.all, s)
	}
	return all, nil
}

func streamRequest(dst []byte, id uint64, token string) []byte {
	dst = protowire.AppendTag(dst, 1, protowire.VarintType)
	dst = protowire.AppendVarint(dst, id)
	dst = protowire.AppendTag(dst, 2, protowire.BytesType)
	return protowire.AppendBytes(dst, requestOf(make([]byte, 0, 80), token))
}

func (s *stream) sender() {
	for m := range s.send {
		if err := s.rpc.SendMsg(&raw{m}); err != nil {
			s.end()
		}
	}
	_ = s.rpc.CloseSend() // the receiver returns the stream's error
}

func (s *stream) receiver() {
	defer close(s.done)
	for {
		var m raw
		if s.err = s.rpc.RecvMsg(&m); s.err != nil {
			return
		}
		_, _, tagged := protowire.ConsumeTag(m.bytes)
		id, n := protowire.ConsumeVarint(m.bytes[max(tagged, 0):])
		if tagged < 0 || n < 0 {
			s.err = errors.New("an answer is cut short")
			return
		}
		rest := m.bytes[tagged+n:]
		field, _, tagged := protowire.ConsumeTag(rest)
		answer, n := protowire.ConsumeBytes(rest[max(tagged, 0):])
		if tagged < 0 || n < 0 || field != 2 {
			s.err = fmt.Errorf("the answer to %d holds no decision", id)
			return
		}
		s.mu.Lock()
		to := s.waiting[id]
		s.mu.Unlock()
		if to == nil {
			s.err = fmt.Errorf("a response to %d, which was not sent", id)
			return
		}
		to <- answer
	}
}

// call presents one token a call.
func (all *streams) call(texts []string) call {
	return func(_ context.Context, worker int, rnd *rand.Rand) (int, error) {
		s := all.all[worker%len(all.all)]
		token, id := texts[rnd.IntN(len(texts))], uint64(worker)+2
		s.mu.Lock()
		mine := s.waiting[id]
		if mine == nil {
			mine = make(chan []byte, 1)
			s.waiting[id] = mine
		}
		s.mu.Unlock()
		s.send <- streamRequest(make([]byte, 0, 96), id, token)
		select {
		case answer := <-mine:
			return 1, checkAnswer(answer, tokenIDOf(token))
		case <-s.done:
			return 0, fmt.Errorf("the stream ended: %w", s.err)
		}
	}
}

func (all *streams) close() error {
	for _, s := range all.all {
		close(s.send)
		<-s.done
		s.end()
	}
	return nil
}
