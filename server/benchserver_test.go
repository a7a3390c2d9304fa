package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	patdv1 "patd/gen/patd/v1"
	"patd/server"
	"patd/store"
	"patd/tokens"
)

// benchServerEnv makes a run of this test binary a server: patd, patd-quiet (which logs nothing) or echo. It
// says hello on its standard output, answers each line of its input with the CPU time it has used, and ends with its input.
const benchServerEnv = "PATD_BENCH_SERVER"

func runBenchServer(kind string) error {
	hello, stop, err := startBench(kind)
	if err != nil {
		return err
	}
	if file := os.Getenv("PATD_BENCH_PROFILE"); file != "" {
		f, err := os.Create(file + "." + kind)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if err := json.NewEncoder(os.Stdout).Encode(hello); err != nil {
		return err
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(os.Stdout, u.Utime.Nano()+u.Stime.Nano()); err != nil {
			return err
		}
	}
	return stop()
}

func startBench(kind string) (benchHello, func() error, error) {
	if kind == "echo" {
		return startEcho()
	}
	return startPatd(kind == "patd-quiet")
}

// startPatd serves a real store with tokens in it. Unless quiet, it logs as it would in production, to /dev/null.
func startPatd(quiet bool) (benchHello, func() error, error) {
	debug.SetGCPercent(400) // as cmd/patd does
	ctx := context.Background()
	fail := func(err error) (benchHello, func() error, error) { return benchHello{}, nil, err }
	dir, err := os.MkdirTemp("", "patd-bench")
	if err != nil {
		return fail(err)
	}
	st, err := store.Open(ctx, "sqlite:"+filepath.Join(dir, "patd.db"), store.Options{})
	if err != nil {
		return fail(err)
	}
	keys, err := tokens.ParseKeys(keyLine)
	if err != nil {
		return fail(err)
	}
	prefixes, err := tokens.BindKeys(ctx, st, keys, "", time.Now())
	if err != nil {
		return fail(err)
	}
	svc, err := tokens.NewService(tokens.Config{Limits: tokens.Limits{ActiveTokens: 1 << 20}, Store: store.NewCached(st, store.CacheOptions{}), Changes: st.Feed(), Keys: tokens.NewKeyring(keys), Prefixes: prefixes, Now: time.Now})
	if err != nil {
		return fail(err)
	}
	logger := slog.New(slog.DiscardHandler)
	if !quiet {
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			return fail(err)
		}
		logger = slog.New(slog.NewJSONHandler(null, nil))
	}
	srv, err := server.New(server.Config{Service: svc, ServiceMintRate: -1, HTTPAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", Logger: logger})
	if err != nil {
		return fail(err)
	}
	caller, err := svc.CreateService(ctx, tokens.Operator(), tokens.ServiceRequest{Name: "gw", Permissions: []string{"introspect", "tokens"}})
	if err != nil {
		return fail(err)
	}
	hello := benchHello{GRPC: srv.GRPCAddr(), HTTP: srv.HTTPAddr(), Admin: caller.Secret.Reveal()}
	if hello.Tokens, err = mintMany(ctx, svc); err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx) }()
	return hello, func() error {
		cancel()
		return errors.Join(<-done, st.Close(), os.RemoveAll(dir))
	}, nil
}

// mintMany mints tokens of four scopes, ten a user.
func mintMany(ctx context.Context, svc *tokens.Service) ([]string, error) {
	n, err := strconv.Atoi(os.Getenv("PATD_BENCH_TOKENS"))
	if err != nil || n <= 0 {
		n = 5000
	}
	scopes := []string{"reports.read", "reports.write", "users.read", "users.write"}
	secrets, errs := make([]string, n), make([]error, n)
	var wg sync.WaitGroup
	gate := make(chan struct{}, benchInFlight)
	for i := range n {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			user := fmt.Sprint("user-", i/10)
			if _, errs[i] = svc.SetUserFeatures(ctx, tokens.Operator(), user, scopes); errs[i] != nil {
				return
			}
			m, err := svc.Mint(ctx, tokens.Operator(), tokens.MintRequest{User: user, Name: fmt.Sprint("token ", i), Scopes: scopes})
			secrets[i], errs[i] = m.Secret.Reveal(), err
		})
	}
	wg.Wait()
	return secrets, errors.Join(errs...)
}

// echoAnswer is as large as an answer of the real thing.
func echoAnswer() *patdv1.IntrospectResponse {
	now := time.Now()
	scopes := []string{"reports.read", "reports.write", "users.read", "users.write"}
	return &patdv1.IntrospectResponse{
		Active: true, Decision: patdv1.IntrospectResponse_ALLOW, TokenId: "15ODq7pq8Hy", User: "user-1234", Name: "token 12345",
		Scopes: scopes, GrantedScopes: scopes, IssueTime: timestamppb.New(now), ExpireTime: timestamppb.New(now.Add(180 * tokens.Day)), Sequence: 12345,
	}
}

// echoServer answers at once.
type echoServer struct {
	patdv1.UnimplementedIntrospectionServiceServer
	answer *patdv1.IntrospectResponse
}

func (e echoServer) Introspect(context.Context, *patdv1.IntrospectRequest) (*patdv1.IntrospectResponse, error) {
	return e.answer, nil
}

// startEcho serves the two baselines.
func startEcho() (benchHello, func() error, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return benchHello{}, nil, err
	}
	httpLis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return benchHello{}, nil, err
	}
	g, h := grpc.NewServer(), &http.Server{Handler: http.HandlerFunc(echoHTTP), ReadHeaderTimeout: time.Minute}
	patdv1.RegisterIntrospectionServiceServer(g, echoServer{answer: echoAnswer()})
	done := make(chan error, 2)
	go func() { done <- g.Serve(lis) }()
	go func() { done <- h.Serve(httpLis) }()
	secret, err := tokens.Mint(tokens.PrefixPersonal, 1<<40, zeros{})
	hello := benchHello{GRPC: lis.Addr().String(), HTTP: httpLis.Addr().String(), Admin: secret.Reveal(), Tokens: []string{secret.Reveal()}}
	return hello, func() error {
		g.Stop()
		cerr := h.Close()
		<-done
		<-done
		return cerr
	}, err
}

// echoHTTP reads JSON and writes JSON.
func echoHTTP(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Token          string   `json:"token"`
		RequiredScopes []string `json:"required_scopes"`
	}
	text, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(text, &q)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	scopes := []string{"reports.read", "reports.write", "users.read", "users.write"}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"active": true, "decision": "ALLOW", "token_id": "15ODq7pq8Hy", "user": "user-1234", "name": "token 12345", "scopes": scopes,
		"granted_scopes": scopes, "suspended_scopes": []string{}, "missing_scopes": []string{}, "audiences": []string{}, "labels": map[string]string{},
		"issue_time": "2026-01-01T00:00:00.000001Z", "expire_time": "2026-06-30T00:00:00.000001Z", "expires_in": "15552000s", "cache_for": "0s", "sequence": "12345",
	})
}
