package client

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patdv1 "patd/gen/patd/v1"
)

const (
	// heartbeat is the longest time between two messages of the server, with some room for a late timer.
	heartbeat = 1250 * time.Millisecond
	// settling is how long after a watch was resumed its messages may still be missed ones.
	settling = time.Second
)

// watcher follows the change feed and updates memory. Only its own goroutine uses it.
type watcher struct {
	rpc    patdv1.IntrospectionServiceClient
	memory *memory
	now    func() time.Time
	log    *slog.Logger
	expiry serviceExpiry // of the service token
	acks   *acknowledger

	sequence uint64 // where to resume: the last message's position and history
	history  string
}

// run watches until ctx ends.
func (w *watcher) run(ctx context.Context) {
	var pause pauses
	for ctx.Err() == nil {
		began := w.now()
		err := w.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		if w.now().Sub(began) > longPause || renewal(err) {
			pause = pauses{}
		}
		switch {
		case renewal(err):
			w.log.LogAttrs(ctx, slog.LevelDebug, "patd renews the connection; watching again")
		case pause.tries == 0:
			w.log.LogAttrs(ctx, slog.LevelWarn, "the watch of patd broke; watching again", slog.Any("error", err))
		}
		pause.wait(ctx, hopeless(err))
	}
}

// renewal reports whether a stream ended because the server renews its connection, which is not a fault.
func renewal(err error) bool {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetReason() == "CONNECTION_AGED" &&
			info.GetDomain() == "patd" {
			return true
		}
	}
	return false
}

// hopeless reports whether a retry is unlikely to help.
func hopeless(err error) bool {
	switch status.Code(err) {
	case codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied:
		return true
	default:
		return false
	}
}

// watch follows one stream until it breaks or falls silent. A silent stream is abandoned: its pipe may hold back old
// messages, while the first message of a new stream was made after the request for it.
func (w *watcher) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	alarm := time.AfterFunc(silence, cancel)
	defer alarm.Stop()
	asked := w.now()
	resumed := w.sequence != 0
	stream, err := w.rpc.WatchInvalidations(
		ctx,
		&patdv1.WatchInvalidationsRequest{After: w.sequence, History: w.history},
	)
	if err != nil {
		return err
	}
	p := pace{asked: asked}
	id := "" // of the watch; empty: an older patd
	for {
		news, err := stream.Recv()
		if err != nil {
			return err
		}
		if !alarm.Reset(silence) {
			return status.Error(codes.DeadlineExceeded, "the watch was silent")
		}
		if p.first.IsZero() {
			id = news.GetWatchId()
			if md, err := stream.Header(); err == nil { // it came before the first message
				w.expiry.learn(md)
			}
		}
		w.expiry.warn(ctx, w.now(), w.log)
		first := p.first.IsZero()
		startOver := news.GetStartOver() || !resumed && first
		if first && !startOver {
			w.memory.resumed(w.sequence)
		}
		w.memory.apply(news, startOver)
		w.sequence, w.history = news.GetSequence(), news.GetHistory()
		if news.GetAcknowledge() && id != "" {
			w.acks.applied(id, news.GetSequence())
		}
		quiet := startOver || len(news.GetTokenIds())+len(news.GetUsers()) == 0
		now := w.now()
		at, current := p.message(now, time.Duration(news.GetElapsedMs())*time.Millisecond, quiet)
		if p.behind > silence/2 {
			return status.Error(codes.DeadlineExceeded, "the watch lags")
		}
		if current && !news.GetMore() {
			w.memory.heard(at, now)
		}
	}
}

// pace judges how current the messages of one stream are.
type pace struct {
	asked       time.Time // when the stream was requested
	first, last time.Time // when the first and the latest message came
	settled     bool
	behind      time.Duration // how old the latest message may be, but for the first
}

// message records a message that came now. It returns the time up to which every change is known, and whether the watch
// has caught up. The server made the message when so much of the stream had elapsed, and the stream began after it was
// requested. A resumed watch has caught up when a message has no news, or when all missed changes must have arrived.
func (p *pace) message(now time.Time, elapsed time.Duration, quiet bool) (at time.Time, current bool) {
	if p.first.IsZero() {
		p.first, p.last, p.settled = now, now, quiet
		return p.asked, p.settled
	}
	p.settled = p.settled || quiet || now.Sub(p.first) >= settling
	if elapsed == 0 {
		return p.beat(now), p.settled
	}
	at = p.asked.Add(elapsed)
	p.behind = max(0, now.Sub(at), now.Round(0).Sub(at.Round(0))) // by the monotonic and the wall clock
	return at, p.settled
}

// beat judges a message of a server that does not say what has elapsed: it is considered as old as the lag that
// heartbeats show. They leave once a second, so a later arrival was held up.
func (p *pace) beat(now time.Time) time.Time {
	p.behind = max(0, p.behind+now.Sub(p.last)-heartbeat)
	p.last = now
	return now.Add(-p.behind)
}
