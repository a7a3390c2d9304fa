package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/tokens"
)

// echoServer returns each call at once with the same answer, which is as large as one of patd's.
type echoServer struct {
	patdv1.UnimplementedIntrospectionServiceServer
	answer *patdv1.IntrospectResponse
}

// Introspect implements the baseline echo.
func (e echoServer) Introspect(context.Context, *patdv1.IntrospectRequest) (*patdv1.IntrospectResponse, error) {
	return e.answer, nil
}

func echoAnswer() *patdv1.IntrospectResponse {
	now := time.Now()
	scopes := []string{"billing.edit", "billing.read", "reports.edit", "reports.read"}
	return &patdv1.IntrospectResponse{
		Active:        true,
		Decision:      patdv1.IntrospectResponse_ALLOW,
		TokenId:       "15ODq7pq8Hy",
		User:          "user-0012345",
		Name:          "CI deploy 00abcd",
		Scopes:        scopes,
		GrantedScopes: scopes,
		IssueTime:     timestamppb.New(now),
		ExpireTime:    timestamppb.New(now.Add(180 * tokens.Day)),
		ExpiresIn:     durationpb.New(180*tokens.Day - time.Microsecond),
		CacheFor:      durationpb.New(0),
		Sequence:      1_234_567,
	}
}

// serveEcho serves both baselines until it is asked to stop.
func serveEcho(ctx context.Context, out io.Writer) error {
	var listen net.ListenConfig
	lis, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	httpLis, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(err, lis.Close())
	}
	g, h := grpc.NewServer(), &http.Server{Handler: http.HandlerFunc(echoHTTP), ReadHeaderTimeout: time.Minute}
	patdv1.RegisterIntrospectionServiceServer(g, echoServer{answer: echoAnswer()})
	done := make(chan error, 2)
	go func() { done <- g.Serve(lis) }()
	go func() { done <- h.Serve(httpLis) }()
	line, err := json.Marshal(hello{Msg: "ready", GRPC: lis.Addr().String(), REST: "http://" + httpLis.Addr().String()})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\n", line)
	<-ctx.Done()
	g.Stop()
	cerr := h.Close()
	for range 2 {
		if err := <-done; err != nil && !errors.Is(err, http.ErrServerClosed) {
			cerr = errors.Join(cerr, err)
		}
	}
	return cerr
}

// echoHTTP reads JSON, or a form, and writes JSON.
func echoHTTP(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Token          string   `json:"token"`
		RequiredScopes []string `json:"required_scopes"`
	}
	text, err := io.ReadAll(r.Body)
	if err == nil && r.Header.Get("Content-Type") == "application/json" {
		err = json.Unmarshal(text, &q)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	scopes := []string{"billing.edit", "billing.read", "reports.edit", "reports.read"}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"active":           true,
		"decision":         "ALLOW",
		"token_id":         "15ODq7pq8Hy",
		"user":             "user-0012345",
		"name":             "CI deploy 00abcd",
		"scopes":           scopes,
		"granted_scopes":   scopes,
		"suspended_scopes": []string{},
		"missing_scopes":   []string{},
		"audiences":        []string{},
		"labels":           map[string]string{},
		"issue_time":       "2026-01-01T00:00:00.000001Z",
		"expire_time":      "2026-06-30T00:00:00.000001Z",
		"expires_in":       "15552000s",
		"cache_for":        "0s",
		"sequence":         "12345",
	})
}
