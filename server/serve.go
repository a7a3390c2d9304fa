package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"patd/server/internal/call"
)

// Serve serves until ctx ends or a listener fails. When ctx ends, the probes report it for the drain delay while
// everything is still served. Then Serve closes the listeners, lets calls under way finish, cuts off those that exceed
// the drain timeout, and waits for every goroutine that it started. It returns nil if it was asked to stop: a call that
// does not finish is logged, but is not an error. Serve is called once.
func (s *Server) Serve(asked context.Context) error {
	g, ctx := errgroup.WithContext(context.WithoutCancel(asked))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g.Go(func() error { return serveGRPC("gRPC", s.grpc, s.grpcLis) })
	g.Go(func() error { return serveGRPC("the gateway", s.inProcess, s.pipe) })
	g.Go(func() error { return s.serveHTTP("HTTP", s.http, s.httpLis) })
	if s.metricsHTTP != nil {
		g.Go(func() error { return s.serveHTTP("metrics", s.metricsHTTP, s.metLis) })
	}
	// The other servers are answered for as long as calls are.
	followed, unfollow := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error { s.receipts.Follow(followed); return nil })
	g.Go(func() error { s.health.watch(ctx); return nil })
	g.Go(func() error { s.grpcGate.Watch(ctx); return nil })
	g.Go(func() error { s.carryOutRevocations(ctx); return nil })
	g.Go(func() error { s.service.RecordSupersededUses(ctx, s.supersededUseFailed); return nil })
	g.Go(func() error { s.service.RecordFeatureChanges(ctx, s.featureChangeFailed); return nil })
	g.Go(func() error {
		s.untilStop(ctx, asked)
		stop()
		s.drain()
		unfollow()
		s.service.FlushSupersededUses(context.WithoutCancel(ctx), s.supersededUseFailed)
		return nil
	})
	return g.Wait()
}

func (s *Server) supersededUseFailed(err error) {
	s.logger.Warn(
		"the use of a superseded secret could not be recorded; the next one is",
		"cause",
		call.LogText(err.Error()),
	)
}

func (s *Server) featureChangeFailed(err error) {
	s.logger.Warn(
		"a change of a user's features could not be recorded; it is tried again",
		"cause",
		call.LogText(err.Error()),
	)
}

// carryOutRevocations carries on revocations of many tokens whose call or server has ended.
func (s *Server) carryOutRevocations(ctx context.Context) {
	s.service.CarryOutRevocations(ctx, func(err error) {
		s.logger.Warn(
			"a revocation of many tokens cannot be carried on now; it is tried again",
			"cause",
			call.LogText(err.Error()),
		)
	})
}

// untilStop waits until a listener has failed, which ends ctx, or until asked has ended and the drain delay is over.
func (s *Server) untilStop(ctx, asked context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-asked.Done():
	}
	s.health.drain()
	delay := time.NewTimer(s.drainDelay)
	defer delay.Stop()
	select {
	case <-delay.C:
	case <-s.hurry:
	case <-ctx.Done():
	}
}

func serveGRPC(what string, g *grpc.Server, lis net.Listener) error {
	if err := g.Serve(lis); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", what, err)
	}
	return nil
}

func (s *Server) serveHTTP(what string, h *http.Server, lis net.Listener) error {
	if err := h.Serve(lis); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", what, err)
	}
	return nil
}

// drain stops from the outside to the inside: the network first, then the connection between the gateway and the chain,
// then the metrics.
func (s *Server) drain() {
	s.health.drain()
	s.stopStreams()
	ctx, cancel := context.WithTimeout(context.Background(), s.drainTimeout)
	defer cancel()
	var g errgroup.Group
	var httpErr error
	g.Go(func() error { httpErr = stopHTTP(ctx, "HTTP", s.http); return nil })
	g.Go(func() error { return stopGRPC(ctx, s.grpc) })
	errs := []error{g.Wait(), httpErr}
	errs = append(errs, s.conn.Close())
	s.front.Active.Wait()
	// No call uses these any more.
	ctx, cancel = context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	errs = append(errs, stopGRPC(ctx, s.inProcess))
	s.streams.Wait()
	if s.metricsHTTP != nil {
		errs = append(errs, stopHTTP(ctx, "metrics", s.metricsHTTP))
	}
	if err := errors.Join(errs...); err != nil {
		s.logger.Warn("not everything that was under way finished in time", "cause", err.Error())
	}
}

func stopHTTP(ctx context.Context, what string, h *http.Server) error {
	if err := h.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("drain %s: requests were cut off: %w", what, err), h.Close())
	}
	return nil
}

func stopGRPC(ctx context.Context, g *grpc.Server) error {
	done := make(chan struct{})
	go func() {
		g.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		g.Stop()
		<-done
		return errors.New("drain gRPC: calls were cut off")
	}
}
