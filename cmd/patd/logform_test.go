package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// wantRecords checks that each line is a record of the log, and returns all messages.
func wantRecords(t *testing.T, what, text string) (messages []string) {
	t.Helper()
	for line := range strings.Lines(text) {
		var record struct{ Time, Level, Msg string }
		if err := json.Unmarshal(
			[]byte(line),
			&record,
		); err != nil || record.Level == "" || record.Msg == "" ||
			record.Time == "" {
			t.Errorf("%s: a line on stderr is no record: %s", what, line)
		}
		messages = append(messages, record.Msg)
	}
	return messages
}

// speak writes to a listener what no client should, and reads until the server has had enough.
func speak(t *testing.T, addr, text string, secure bool) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Errorf("connect: %v", err)
		return
	}
	defer conn.Close()
	if secure {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	}
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	_, _ = io.WriteString(conn, text)
	_, _ = io.Copy(io.Discard, conn)
}

func TestEveryLineOnStderrIsARecordOfTheLog(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"plain text": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			args := []string{
				"serve",
				"--data-dir",
				filepath.Join(dir, "data"),
				"--http-addr",
				"127.0.0.1:0",
				"--grpc-addr",
				"127.0.0.1:0",
				"--log-format",
				"json",
				"--log-level",
				"debug",
			}
			if secure {
				cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
				selfSigned(t, cert, key)
				args = append(args, "--tls-cert", cert, "--tls-key", key)
			}
			// By the first two gRPC would write to stderr of its own accord; the third is a setting that does not
			// exist.
			env := append(
				os.Environ(),
				"GRPC_GO_LOG_SEVERITY_LEVEL=info",
				"GRPC_GO_LOG_VERBOSITY_LEVEL=99",
				"PATD_NO_SUCH=1",
			)
			d, err := start(dir, env, args...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(d.End)
			front, err := url.Parse(d.HTTP)
			if err != nil {
				t.Fatal(err)
			}
			var g sync.WaitGroup
			for _, addr := range []string{front.Host, d.GRPC} {
				for _, over := range []bool{false, true} {
					for _, text := range []string{
						"", "\x00\x01\x02\xff garbage\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET /v1/users HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n",
						"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff",
						"POST /v1/introspect HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
					} {
						g.Go(func() { speak(t, addr, text, over) })
					}
				}
			}
			g.Wait()
			if err := d.Stop(); err != nil {
				t.Error(err)
			}
			said := wantRecords(t, "a server", d.Log.String())
			for _, want := range []string{"starting", "ready", "library", "stopping", "stopped"} {
				if !slices.Contains(said, want) {
					t.Errorf("no record says %q", want)
				}
			}
		})
	}
	t.Run("a mistake of usage", func(t *testing.T) {
		t.Parallel()
		_, err := start(t.TempDir(), os.Environ(), "serve", "--log-format", "json")
		_, text, _ := strings.Cut(fmt.Sprint(err), "it said\n")
		if said := wantRecords(
			t,
			"a mistake of usage",
			text,
		); len(said) != 1 ||
			!strings.Contains(said[0], "say where the store is") {
			t.Errorf("it says %q", said)
		}
	})
	t.Run("a start that fails", func(t *testing.T) {
		t.Parallel()
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		dir := t.TempDir()
		_, err = start(
			dir,
			os.Environ(),
			"serve",
			"--data-dir",
			filepath.Join(dir, "data"),
			"--http-addr",
			taken.Addr().String(),
			"--grpc-addr",
			"127.0.0.1:0",
			"--log-format",
			"json",
		)
		_, text, found := strings.Cut(fmt.Sprint(err), "it said\n")
		if !found {
			t.Fatalf("it started, or said nothing: %v", err)
		}
		said := wantRecords(t, "a start that fails", text)
		if len(said) == 0 || !strings.Contains(said[len(said)-1], "in use") {
			t.Errorf("the last record does not say why: %q", said)
		}
	})
}
