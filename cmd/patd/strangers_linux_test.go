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
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
)

// peak is the most memory that a daemon has held, in bytes.
func (d *daemon) peak(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
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

// opening is the frames that open a stream for a request with as many bytes of headers. Its message does not come.
func opening(stream uint32, path, kind string, headers int) []byte {
	var block, out bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":path", path}, {":authority", "x"}, {"content-type", kind}, {"te", "trailers"},
		{"x", strings.Repeat("~", headers)}, // which Huffman's code makes no shorter
	} {
		_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true}) // which no table keeps
	}
	for rest, next := block.Bytes(), byte(frameHeaders); len(rest) > 0; next = frameContinuation {
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

var unknownMemory = regexp.MustCompile(`(?m)^patd_unknown_caller_(memory_bytes|refusals_total) (\S+)`)

// TestStreamsWithoutACredentialHoldNoMoreThanTheirBudget opens streams that need no credential, with large headers and
// without a message: 350 MB of them.
func TestStreamsWithoutACredentialHoldNoMoreThanTheirBudget(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("it takes seconds, and what it measures is another process")
	}
	for name, ways := range map[string]struct {
		kind  string
		paths []string
	}{
		"gRPC": {"application/grpc", []string{
			"/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/Check", "/patd.v1.LeakService/ReportLeaks", "/patd.v1.IntrospectionService/Introspect",
		}},
		"REST": {"application/json", []string{"/v1/leaks", "/v1/introspect", "/oauth2/revoke"}},
	} {
		t.Run(name, func(t *testing.T) {
			const connections, streams, headers, budget = 120, 100, 30 << 10, 4 << 20
			dir := t.TempDir()
			data, cert, key := filepath.Join(dir, "data"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
			selfSigned(t, cert, key)
			// The collector comes often, so that what is measured is what is held, and not garbage.
			d, err := startAs(programToMeasure(t), dir, append(os.Environ(), "GOGC=25"), "serve", "--data-dir", data, "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0",
				"--log-level", "error", "--unknown-caller-memory", "4MiB", "--tls-cert", cert, "--tls-key", key)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(d.kill)
			addr := d.grpc
			if name == "REST" {
				addr = strings.TrimPrefix(d.http, "https://")
			}
			before := d.peak(t)
			var opened, reading sync.WaitGroup
			defer reading.Wait()
			for i := range connections {
				raw, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer raw.Close()
				_ = raw.SetDeadline(time.Now().Add(patience))
				conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
				opened.Go(func() {
					if _, err := io.WriteString(conn, preface); err != nil {
						t.Errorf("open a connection: %v", err)
						return
					}
					reading.Go(func() { _, _ = io.Copy(io.Discard, conn) })
					for n := range uint32(streams) {
						if _, err := conn.Write(opening(2*n+1, ways.paths[i%len(ways.paths)], ways.kind, headers)); err != nil {
							return // the server has had enough of it
						}
					}
				})
			}
			opened.Wait()

			probe := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
			defer probe.CloseIdleConnections()
			get := func(path string) string {
				resp, err := probe.Get(d.http + path)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("%s meanwhile: %d, %v", path, resp.StatusCode, err)
				}
				return string(body)
			}
			get("/readyz")
			figures := map[string]float64{}
			for _, m := range unknownMemory.FindAllStringSubmatch(get("/metrics"), -1) {
				figures[m[1]], _ = strconv.ParseFloat(m[2], 64)
			}
			if figures["memory_bytes"] > budget || figures["refusals_total"] == 0 {
				t.Errorf("strangers hold %v bytes of %d, and %v were refused", figures["memory_bytes"], budget, figures["refusals_total"])
			}
			grown := d.peak(t) - before
			t.Logf("%d MB of headers made the process grow by %d MB", connections*streams*headers>>20, grown>>20)
			if grown > connections*streams*headers/2 {
				t.Errorf("%d streams without a credential made the process grow by %d MB", connections*streams, grown>>20)
			}
		})
	}
}
