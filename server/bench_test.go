package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	patdv1 "patd/gen/patd/v1"
)

const (
	benchConns    = 4
	benchInFlight = 64
	benchRounds   = 5
	benchPeriod   = 1500 * time.Millisecond
)

// BenchmarkIntrospect measures introspection, over gRPC and over REST, and durable mints, beside calls that do nothing: an empty unary
// call of grpc-go with default options, and JSON over net/http, with answers of the same size. Every server is a
// process of its own; they are measured in turn, round by round. Reported are the medians over the rounds: what a
// call costs the server's process in CPU time, and that and the throughput relative to the same round's baseline.
//
// The number of tokens is PATD_BENCH_TOKENS, 5000 unless given. One iteration is the whole comparison.
func BenchmarkIntrospect(b *testing.B) {
	patd, echo := startServer(b, "patd"), startServer(b, "echo")
	runs := []benchRun{
		{"echo", echo, echo.grpcCall, "", nil},
		{"grpc", patd, patd.grpcCall, "echo", nil},
		{"stream", patd, patd.streamCall, "echo", nil},
		{"batch-token", patd, patd.batchCall, "echo", nil},
		{"echo-http", echo, echo.httpCall, "", nil},
		{"rest", patd, patd.httpCall, "echo-http", nil},
	}
	if only := os.Getenv("PATD_BENCH_ONLY"); only != "" {
		runs = slices.DeleteFunc(runs, func(r benchRun) bool { return !slices.Contains(strings.Split(only, ","), r.name) })
	}
	for _, r := range runs {
		r.server.load(b, r.call, benchPeriod/3) // warm up
	}
	b.ResetTimer()
	for range b.N {
		for range benchRounds {
			for i := range runs {
				runs[i].rounds = append(runs[i].rounds, runs[i].server.load(b, runs[i].call, benchPeriod))
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, r := range runs {
		b.ReportMetric(median(r.rounds, func(i int) float64 { return r.rounds[i].cpuPerCall }), r.name+"-us-cpu/call")
		b.Logf("%-14s %6.0f calls/s, %5.1f us CPU per call, p50 %s, p99 %s", r.name,
			median(r.rounds, func(i int) float64 { return r.rounds[i].perSecond }), median(r.rounds, func(i int) float64 { return r.rounds[i].cpuPerCall }),
			time.Duration(median(r.rounds, func(i int) float64 { return float64(r.rounds[i].p50) })), time.Duration(median(r.rounds, func(i int) float64 { return float64(r.rounds[i].p99) })))
		for _, base := range runs {
			if base.name != r.base {
				continue
			}
			cpu := func(i int) float64 { return r.rounds[i].cpuPerCall / base.rounds[i].cpuPerCall }
			b.ReportMetric(median(r.rounds, cpu), r.name+"-cpu/"+base.name)
			b.ReportMetric(median(r.rounds, func(i int) float64 { return r.rounds[i].perSecond / base.rounds[i].perSecond }), r.name+"-rate/"+base.name)
			b.Logf("%-14s CPU per call against %s: median %.2f, from %.2f to %.2f", "", base.name,
				median(r.rounds, cpu), sorted(r.rounds, cpu)[0], sorted(r.rounds, cpu)[len(r.rounds)-1])
		}
	}
}

type benchRun struct {
	name   string
	server *benchServer
	call   func(worker int, token string) error
	base   string
	rounds []benchRound
}

type benchRound struct {
	perSecond, cpuPerCall float64
	p50, p99              time.Duration
}

func sorted(rounds []benchRound, of func(int) float64) []float64 {
	out := make([]float64, len(rounds))
	for i := range out {
		out[i] = of(i)
	}
	slices.Sort(out)
	return out
}

func median(rounds []benchRound, of func(int) float64) float64 {
	return sorted(rounds, of)[len(rounds)/2]
}

// benchHello is what a server process says when it is ready.
type benchHello struct {
	GRPC, HTTP, Admin string
	Tokens            []string
}

// benchServer is a server in a process of its own.
type benchServer struct {
	benchHello
	in      io.WriteCloser
	out     *bufio.Reader
	clients []patdv1.IntrospectionServiceClient
	streams []*benchStream
	http    *http.Client
}

// startServer runs this test binary again, as a server (see benchserver_test.go).
func startServer(b *testing.B, kind string) *benchServer {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), benchServerEnv+"="+kind), os.Stderr
	in, err := cmd.StdinPipe()
	must(b, err)
	out, err := cmd.StdoutPipe()
	must(b, err)
	must(b, cmd.Start())
	s := &benchServer{in: in, out: bufio.NewReaderSize(out, 1<<20), http: &http.Client{Transport: &http.Transport{MaxConnsPerHost: benchInFlight, MaxIdleConnsPerHost: benchInFlight}}}
	line, err := s.out.ReadBytes('\n')
	must(b, err)
	must(b, json.Unmarshal(line, &s.benchHello))
	for range benchConns {
		conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
		must(b, err)
		s.clients = append(s.clients, patdv1.NewIntrospectionServiceClient(conn))
		s.streams = append(s.streams, &benchStream{client: patdv1.NewIntrospectionServiceClient(conn)})
		b.Cleanup(func() { must(b, conn.Close()) })
	}
	b.Cleanup(func() {
		s.http.CloseIdleConnections()
		must(b, in.Close())
		must(b, cmd.Wait())
	})
	return s
}

// cpu is the CPU time that the server's process has used.
func (s *benchServer) cpu(b *testing.B) time.Duration {
	b.Helper()
	_, err := io.WriteString(s.in, "cpu\n")
	must(b, err)
	var used int64
	_, err = fmt.Fscanln(s.out, &used)
	must(b, err)
	return time.Duration(used)
}

// load keeps calls in flight for a while. Any error, and any answer but ALLOW, ends the benchmark.
func (s *benchServer) load(b *testing.B, call func(int, string) error, period time.Duration) benchRound {
	b.Helper()
	var calls atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	before, start := s.cpu(b), time.Now()
	end := start.Add(period)
	var wg sync.WaitGroup
	for w := range benchInFlight {
		wg.Go(func() {
			mine := make([]time.Duration, 0, 4096)
			for now := time.Now(); now.Before(end); {
				if err := call(w, s.Tokens[rand.IntN(len(s.Tokens))]); err != nil {
					b.Error(err)
					return
				}
				then := now
				now = time.Now()
				mine = append(mine, now.Sub(then))
			}
			calls.Add(int64(len(mine)))
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	wg.Wait()
	n, elapsed, used := float64(calls.Load()), time.Since(start), s.cpu(b)-before
	if n == 0 || b.Failed() {
		b.Fatal("no call succeeded")
	}
	slices.Sort(took)
	return benchRound{n / elapsed.Seconds(), float64(used.Nanoseconds()) / 1000 / n, took[len(took)/2], took[len(took)*99/100]}
}

func (s *benchServer) grpcCall(worker int, token string) error {
	resp, err := s.clients[worker%benchConns].Introspect(as(s.Admin), &patdv1.IntrospectRequest{Token: token, RequiredScopes: []string{"reports.read"}})
	if err == nil && resp.GetDecision() != patdv1.IntrospectResponse_ALLOW {
		err = fmt.Errorf("the decision was %s", resp.GetDecision())
	}
	return err
}

// benchBatch is how many tokens a batch holds.
const benchBatch = 100

// batchCall asks for many tokens at once.
func (s *benchServer) batchCall(worker int, _ string) error {
	req := &patdv1.BatchIntrospectRequest{}
	for range benchBatch {
		req.Requests = append(req.Requests, &patdv1.IntrospectRequest{Token: s.Tokens[rand.IntN(len(s.Tokens))], RequiredScopes: []string{"reports.read"}})
	}
	resp, err := s.clients[worker%benchConns].BatchIntrospect(as(s.Admin), req)
	if err == nil && (len(resp.GetResponses()) != benchBatch || resp.GetResponses()[benchBatch-1].GetDecision() != patdv1.IntrospectResponse_ALLOW) {
		err = errors.New("the answers are not what they should be")
	}
	return err
}

// benchStream is one stream that many workers share.
type benchStream struct {
	client  patdv1.IntrospectionServiceClient
	once    sync.Once
	stream  grpc.BidiStreamingClient[patdv1.IntrospectStreamRequest, patdv1.IntrospectStreamResponse]
	err     error
	mu      sync.Mutex
	waiting [benchInFlight]chan *patdv1.IntrospectStreamResponse
}

func (s *benchServer) streamCall(worker int, token string) error {
	b := s.streams[worker%benchConns]
	b.once.Do(func() {
		for i := range b.waiting {
			b.waiting[i] = make(chan *patdv1.IntrospectStreamResponse, 1)
		}
		if b.stream, b.err = b.client.IntrospectStream(as(s.Admin)); b.err != nil {
			return
		}
		go func() {
			for {
				resp, err := b.stream.Recv()
				if err != nil {
					return
				}
				b.waiting[resp.GetId()] <- resp
			}
		}()
	})
	if b.err != nil {
		return b.err
	}
	b.mu.Lock()
	err := b.stream.Send(&patdv1.IntrospectStreamRequest{Id: uint64(worker), Request: &patdv1.IntrospectRequest{Token: token, RequiredScopes: []string{"reports.read"}}})
	b.mu.Unlock()
	if err != nil {
		return err
	}
	if resp := <-b.waiting[worker]; resp.GetResponse().GetDecision() != patdv1.IntrospectResponse_ALLOW {
		return fmt.Errorf("the answer was %v", resp)
	}
	return nil
}

func (s *benchServer) httpCall(_ int, token string) error {
	body := `{"token":"` + token + `","required_scopes":["reports.read"]}`
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+s.HTTP+"/v1/introspect", bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.Admin)
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	if err == nil && !bytes.Contains(text, []byte(`ALLOW`)) {
		err = fmt.Errorf("the answer was %s %s", resp.Status, text)
	}
	return err
}
