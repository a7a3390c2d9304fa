package clienttest

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
)

// service serves a Server over gRPC.
type service struct {
	patdv1.UnimplementedIntrospectionServiceServer
	server            *Server
	noStream, noWatch bool
	bound             string // the audience that the caller is bound to; empty: none
}

// Introspect decides about one token.
func (s *service) Introspect(ctx context.Context, r *patdv1.IntrospectRequest) (*patdv1.IntrospectResponse, error) {
	s.server.mu.Lock()
	s.server.calls.Unary++
	s.server.mu.Unlock()
	return s.decide(ctx, r)
}

func (s *service) decide(ctx context.Context, r *patdv1.IntrospectRequest) (*patdv1.IntrospectResponse, error) {
	v := s.server
	v.mu.Lock()
	by := v.now
	if v.frozen != nil {
		by = *v.frozen
	}
	answer, err := by.decide(r, s.bound, time.Now())
	if v.fault != nil {
		err = v.fault
	}
	held := v.held
	if held != nil {
		v.holding++
	}
	v.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			err = ctx.Err()
		}
		v.mu.Lock()
		v.holding--
		v.mu.Unlock()
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// IntrospectStream decides about many tokens, each as soon as it can.
func (s *service) IntrospectStream(stream patdv1.IntrospectionService_IntrospectStreamServer) error {
	if s.noStream {
		return status.Error(codes.Unimplemented, "no such method")
	}
	s.server.mu.Lock()
	s.server.calls.Streams++
	s.server.mu.Unlock()
	ctx, cancel := context.WithCancel(stream.Context())
	var answering sync.WaitGroup
	defer answering.Wait()
	defer cancel()
	var sending sync.Mutex
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		s.server.mu.Lock()
		s.server.calls.Streamed++
		s.server.mu.Unlock()
		answering.Go(func() {
			out := &patdv1.IntrospectStreamResponse{Id: r.GetId()}
			answer, err := s.decide(ctx, r.GetRequest())
			if err != nil {
				st := status.Convert(err)
				out.Result = &patdv1.IntrospectStreamResponse_Error_{Error: &patdv1.IntrospectStreamResponse_Error{
					Code: int32(st.Code()), Reason: "STORE_UNAVAILABLE", Message: st.Message(),
				}}
			} else {
				out.Result = &patdv1.IntrospectStreamResponse_Response{Response: answer}
			}
			sending.Lock()
			defer sending.Unlock()
			_ = stream.Send(out) // a broken stream shows in Recv
		})
	}
}

// watchBatch is the maximum number of changes in one message.
const watchBatch = 1000

// WatchInvalidations sends the changes.
func (s *service) WatchInvalidations(
	r *patdv1.WatchInvalidationsRequest,
	stream patdv1.IntrospectionService_WatchInvalidationsServer,
) error {
	if s.noWatch {
		return status.Error(codes.Unimplemented, "no such method")
	}
	v := s.server
	v.mu.Lock()
	v.calls.Watches++
	v.mu.Unlock()
	at, history, began := r.GetAfter(), r.GetHistory(), time.Now()
	watch := "" // its id, once the first message has it
	for {
		elapsed := time.Since(began)
		message, news := v.since(at, history, s.bound)
		message.More = news == nil
		if first := watch == ""; first {
			watch = rand.Text()
			message.WatchId = watch
		}
		message.Acknowledge = v.toAcknowledge(watch, message.GetSequence())
		message.ElapsedMs = uint32(elapsed.Milliseconds())
		at, history = message.GetSequence(), message.GetHistory()
		if err := stream.Send(message); err != nil {
			return err
		}
		if news == nil {
			continue
		}
		heartbeat := time.NewTimer(time.Second)
		select {
		case <-stream.Context().Done():
			heartbeat.Stop()
			return stream.Context().Err()
		case <-news:
			heartbeat.Stop()
		case <-heartbeat.C:
		}
	}
}

// AcknowledgeInvalidations records what a watcher has applied.
func (s *service) AcknowledgeInvalidations(
	_ context.Context,
	r *patdv1.AcknowledgeInvalidationsRequest,
) (*patdv1.AcknowledgeInvalidationsResponse, error) {
	v := s.server
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calls.Acknowledgements++
	if v.fault != nil {
		return nil, v.fault
	}
	if sent := v.sent[r.GetWatchId()]; r.GetSequence() > sent {
		return nil, status.Error(codes.InvalidArgument, "it was not sent")
	}
	v.acknowledged = max(v.acknowledged, r.GetSequence())
	return &patdv1.AcknowledgeInvalidationsResponse{}, nil
}

// toAcknowledge records what a watch is sent, and reports whether it is to be acknowledged.
func (s *Server) toAcknowledge(watch string, sequence uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent[watch] = sequence
	return s.asking
}

// since returns the changes since a position that a caller bound to an audience may see, and a channel that is closed
// when there are more; nil: there are more already.
func (s *Server) since(at uint64, history, bound string) (*patdv1.WatchInvalidationsResponse, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &patdv1.WatchInvalidationsResponse{Sequence: s.now.sequence, History: s.historyName()}
	if at == 0 || history != out.GetHistory() || at < s.first || at > s.now.sequence {
		out.StartOver = true
		return out, s.news
	}
	news := s.news
	changes := s.feed[at-s.first:]
	if len(changes) > watchBatch {
		changes, news = changes[:watchBatch], nil
		out.Sequence = at + watchBatch
	}
	for _, c := range changes {
		t := s.now.tokens[c.token]
		switch {
		case c == change{}:
			return &patdv1.WatchInvalidationsResponse{
				Sequence:  s.now.sequence,
				History:   out.GetHistory(),
				StartOver: true,
			}, s.news
		case c.token != "" && s.now.goodFor(&t, bound):
			out.TokenIds = append(out.TokenIds, c.token)
		case c.user != "" && (bound == "" || s.now.holdsVisible(c.user, bound, time.Now())):
			out.Users = append(out.Users, c.user)
		}
	}
	return out, news
}

// ReportUses records the uses.
func (s *service) ReportUses(_ context.Context, r *patdv1.ReportUsesRequest) (*patdv1.ReportUsesResponse, error) {
	if len(r.GetUses()) > 1000 {
		return nil, status.Error(codes.InvalidArgument, "at most 1000 uses")
	}
	v := s.server
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fault != nil {
		return nil, v.fault
	}
	v.calls.Reports++
	for _, use := range r.GetUses() {
		if before := v.uses[use.GetTokenId()]; before == nil ||
			before.GetTime().AsTime().Before(use.GetTime().AsTime()) {
			v.uses[use.GetTokenId()] = use
		}
	}
	return &patdv1.ReportUsesResponse{}, nil
}
