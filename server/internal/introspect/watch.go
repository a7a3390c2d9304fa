package introspect

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/receipt"
	"patd/tokens"
)

const (
	// heartbeat is how often a watcher receives a message, with or without news. Its caller is rechecked as often.
	heartbeat = time.Second
	// newsGap is the least time between two messages of news, so that many changes share one message.
	newsGap = 20 * time.Millisecond
	// agedSpread is by how much watches end before receipt.MaxAge, at most, so that those which began together do not
	// end together.
	agedSpread = 5 * time.Minute
	// slowWatcher is how long a send to a watcher may block before the watcher is cut off.
	slowWatcher = 10 * time.Second
)

// WatchInvalidations streams invalidations until the caller ends the stream, loses its access or reads too slowly, or
// the server stops. A watcher buffers no messages: it reads them from the feed when it sends them.
func (s *Service) WatchInvalidations(
	r *patdv1.WatchInvalidationsRequest,
	ss grpc.ServerStreamingServer[patdv1.WatchInvalidationsResponse],
) error {
	to := &watcherStream{chain: s.chain, stream: ss, sent: make(chan error, 1)}
	return s.follow(
		call.Of(ss.Context()),
		tokens.WatchPosition{Sequence: r.GetAfter(), History: r.GetHistory()},
		to.send,
	)
}

// follow sends invalidations, whatever carries them, until something ends the watch. It returns the reason.
func (s *Service) follow(
	begun *call.Call,
	from tokens.WatchPosition,
	send func(*patdv1.WatchInvalidationsResponse) error,
) error {
	watch, err := s.service.Watch(begun, begun.Actor, from)
	if err != nil {
		return err
	}
	noted := s.receipts.Watch(begun.Actor)
	defer noted.End()
	w := &watching{
		chain:  s.chain,
		caller: begun,
		watch:  watch,
		send:   send,
		began:  time.Now(),
		noted:  noted,
		id:     noted.ID(),
	}
	if err := w.tell(true); err != nil {
		return err
	}
	// Half a minute is for messages that are sent slowly.
	retire := w.began.Add(receipt.MaxAge - 30*time.Second - rand.N(agedSpread)) //nolint:gosec // G404: any will do
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	gap := time.NewTicker(newsGap)
	defer gap.Stop()
	gap.Stop() // until there is news
	news, asked := watch.News(), false
	for {
		var err error
		select {
		case <-begun.Done():
			return begun.Err()
		case <-s.chain.Draining.Done():
			return stopping()
		case now := <-beat.C:
			if begun.Connection.Retired(now) || now.After(retire) {
				return aged()
			}
			if begun.Actor, err = s.chain.Recheck(begun, begun.Actor); err == nil {
				err = w.tell(true)
			}
		case <-news:
			news = nil
			gap.Reset(newsGap)
		case <-noted.Asked(): // a call waits until this watcher acknowledges, so it is sent a message soon, news or not
			if news != nil {
				news = nil
				gap.Reset(newsGap)
			}
			asked = true
		case <-gap.C:
			gap.Stop()
			err = w.tell(asked)
			news, asked = watch.News(), false
		}
		if err != nil {
			return err
		}
	}
}

// watching is one watcher.
type watching struct {
	chain  *call.Chain
	caller *call.Call
	watch  *tokens.Watch
	send   func(*patdv1.WatchInvalidationsResponse) error
	began  time.Time // after the watcher asked
	noted  *receipt.Watch
	id     string // of the watch, until it has been sent
}

// tell sends the pending news; without news it sends only heartbeats. A caller that has lost its access is sent
// nothing. One that cannot be checked gets heartbeats only.
func (w *watching) tell(always bool) error {
	elapsed := time.Since(w.began) // before the feed is read: what changes from here on may be missing
	in, err := w.watch.Next(w.caller)
	if err != nil {
		return err
	}
	news := in.StartOver || len(in.TokenIDs) > 0 || len(in.Users) > 0
	if err := w.chain.StillIs(w.caller); err != nil && (news || !always || call.CallerEnded(err)) {
		return err
	}
	if !news && !always {
		return nil
	}
	m := toInvalidations(in, elapsed)
	m.WatchId, w.id = w.id, ""
	m.Acknowledge = w.noted.Sending(in.At.Sequence)
	return w.send(m)
}

// AcknowledgeInvalidations records that a watcher has applied what it was sent.
func (s *Service) AcknowledgeInvalidations(
	ctx context.Context,
	r *patdv1.AcknowledgeInvalidationsRequest,
) (*patdv1.AcknowledgeInvalidationsResponse, error) {
	if err := s.receipts.Acknowledge(call.ActorOf(ctx), r.GetWatchId(), r.GetSequence()); err != nil {
		return nil, err
	}
	return &patdv1.AcknowledgeInvalidationsResponse{}, nil
}

// watcherStream is a watcher over gRPC.
type watcherStream struct {
	chain  *call.Chain
	stream grpc.ServerStreamingServer[patdv1.WatchInvalidationsResponse]
	sent   chan error
}

// send sends a message, and gives up on a watcher that does not read: once the transport's buffer for it is full, the
// send blocks. The end of the stream wakes it.
func (w *watcherStream) send(m *patdv1.WatchInvalidationsResponse) error {
	w.chain.Streams.Go(func() { w.sent <- w.stream.Send(m) })
	late := time.NewTimer(slowWatcher)
	defer late.Stop()
	select {
	case err := <-w.sent:
		if err != nil {
			return streamEnd(err)
		}
		return nil
	case <-late.C:
		return tooSlow()
	case <-w.chain.Draining.Done():
		return stopping()
	}
}

// tooSlow returns the error that ends the watch of a watcher that does not read.
func tooSlow() *tokens.Error {
	return tokens.Fail(
		tokens.CodeExhausted,
		"WATCHER_TOO_SLOW",
		"the watcher does not read; watch again from where it was",
	)
}

func toInvalidations(in tokens.Invalidations, elapsed time.Duration) *patdv1.WatchInvalidationsResponse {
	out := &patdv1.WatchInvalidationsResponse{
		Sequence: in.At.Sequence, History: in.At.History, StartOver: in.StartOver, Users: in.Users, More: in.More,
		ElapsedMs: uint32(elapsed.Milliseconds()), // a connection ends long before 49 days
	}
	for _, id := range in.TokenIDs {
		out.TokenIds = append(out.TokenIds, id.String())
	}
	return out
}
