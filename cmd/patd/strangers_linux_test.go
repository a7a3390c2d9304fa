package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"patd/internal/longtest"

	"golang.org/x/net/http2/hpack"
)

// peak is the most memory that a daemon has held, in bytes.
func (d *daemon) peak(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	n, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

const (
	frameHeaders      = 1
	flagEndHeaders    = 4
	frameContinuation = 9
	maxFrame          = 16 << 10
)

func frame(out *bytes.Buffer, kind, flags byte, stream uint32, payload []byte) {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	head = append(head, flags)
	head = binary.BigEndian.AppendUint32(head, stream)
	out.Write(append(head, payload...))
}

// headerBlock is a block of header fields which no table keeps.
func headerBlock(fields ...[2]string) []byte {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, f := range fields {
		_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true})
	}
	return block.Bytes()
}

// opening is the frames that open a stream for a request with more headers. Its message does not come.
func opening(stream uint32, path, kind string, more []byte) []byte {
	var out bytes.Buffer
	block := headerBlock([][2]string{
		{
			":method",
			"POST",
		},
		{":scheme", "https"},
		{":path", path},
		{":authority", "x"},
		{"content-type", kind},
		{"te", "trailers"},
	}...)
	for rest, next := append(block, more...), byte(frameHeaders); len(rest) > 0; next = frameContinuation {
		n, flags := min(len(rest), maxFrame), byte(0)
		if n == len(rest) {
			flags = flagEndHeaders
		}
		frame(&out, next, flags, stream, rest[:n])
		rest = rest[n:]
	}
	return out.Bytes()
}

// preface opens a connection of HTTP/2.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// busy keeps every processor busy, so that what a server has to do waits for one.
func busy(t *testing.T) {
	t.Helper()
	for range 2 * runtime.NumCPU() {
		loop := exec.Command("sh", "-c", "while :; do :; done")
		if err := loop.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = loop.Process.Kill()
			_ = loop.Wait()
		})
	}
}

var unknownBytes = regexp.MustCompile(`(?m)^patd_unknown_caller_memory_bytes (\S+)`)

// TestStreamsWithoutACredentialHoldNoMoreThanTheirBudget opens streams without a good credential, with large headers or
// very many, and without a message: 180 MB of them. The server has one processor, which others keep busy, so that
// handlers come late.
func TestStreamsWithoutACredentialHoldNoMoreThanTheirBudget(t *testing.T) {
	longtest.Only(t)
	if longtest.Race {
		t.Skip("it takes seconds, and what it measures is another process")
	}
	const connections, streams, patient = 120, 100, 8 * time.Second
	const budget, margin = 4 << 20, 20 << 20 // margin: what the process takes for whoever calls, and garbage
	dir := t.TempDir()
	data, cert, key := filepath.Join(dir, "data"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	selfSigned(t, cert, key)
	program := programToMeasure(t)
	// The collector comes often, so that what is measured is what is held, and not garbage.
	d, err := startAs(
		program,
		dir,
		append(os.Environ(), "GOGC=25", "GOMAXPROCS=1"),
		"serve",
		"--data-dir",
		data,
		"--http-addr",
		"127.0.0.1:0",
		"--grpc-addr",
		"127.0.0.1:0",
		"--log-level",
		"error",
		"--unknown-caller-memory",
		"4MiB",
		"--tls-cert",
		cert,
		"--tls-key",
		key,
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.End)
	before := d.peak(t)
	busy(t)

	var opened, reading sync.WaitGroup
	defer reading.Wait()
	var sent atomic.Int64
	blocks := [][]byte{oneHeader(30 << 10), oneHeader(13 << 10), manyHeaders(900)}
	for i := range connections {
		addr, kind, paths := d.GRPC, "application/grpc", []string{
			"/grpc.health.v1.Health/Watch",
			"/grpc.health.v1.Health/Check",
			"/patd.v1.LeakService/ReportLeaks",
			"/no.such.Service/Method",
			"/patd.v1.IntrospectionService/Introspect",
			"/patd.v1.IntrospectionService/IntrospectStream",
		}
		if i%2 != 0 {
			addr, kind = strings.TrimPrefix(d.HTTP, "https://"), "application/json"
			paths = []string{"/v1/leaks", "/v1/introspect", "/oauth2/revoke", "/healthz"}
		}
		path, block := paths[i/6%len(paths)], blocks[i/2%len(blocks)]
		raw, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		// The server stops reading when it has had enough, and closes connections to make room.
		_ = raw.SetDeadline(time.Now().Add(patient))
		conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		opened.Go(func() {
			if _, err := io.WriteString(conn, preface); err != nil {
				return
			}
			reading.Go(func() { _, _ = io.Copy(io.Discard, conn) })
			for n := range uint32(streams) {
				n, err := conn.Write(opening(2*n+1, path, kind, block))
				if sent.Add(int64(n)); err != nil {
					return
				}
			}
		})
	}
	opened.Wait()
	grown := d.peak(t) - before
	t.Logf("%d MB of headers sent; the process grew by %d MB", sent.Load()>>20, grown>>20)
	if grown > budget+margin {
		t.Errorf("%d streams without a credential made the process grow by %d MB", connections*streams, grown>>20)
	}

	probe := &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true},
	}
	defer probe.CloseIdleConnections()
	for path, shown := range map[string]*regexp.Regexp{"/readyz": nil, "/metrics": unknownBytes} {
		resp, err := probe.Get(d.HTTP + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s meanwhile: %d, %v", path, resp.StatusCode, err)
		}
		if shown != nil {
			if held, err := strconv.ParseFloat(string(shown.FindSubmatch(body)[1]), 64); err != nil || held > budget/2 {
				t.Errorf("strangers hold %v bytes, %v, beyond the shares of their connections", held, err)
			}
		}
	}
}

// oneHeader is a header of a size.
func oneHeader(size int) []byte {
	return headerBlock([2]string{"x", strings.Repeat("~", size)}) // which Huffman's code makes no shorter
}

// manyHeaders are headers with as little on the wire as there can be: after the first, each is one byte.
func manyHeaders(n int) []byte {
	block := append(headerBlock(), 0x40, 1, 'x', 0) // into the dynamic table, where it is the first
	return append(block, bytes.Repeat([]byte{0x80 | 62}, n)...)
}
