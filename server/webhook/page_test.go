package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"patd/internal/pagetest"
	"patd/server/webhook"
)

var update = flag.Bool("update", false, "write the schemas into docs/webhooks.md")

const beginSchemas, endSchemas = "<!-- schemas -->\n", "<!-- end of schemas -->\n"

func TestSchemasStandOnThePage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(pagetest.Root(t), "docs/webhooks.md")
	page, err := os.ReadFile(path)
	must(t, err)
	before, rest, ok := strings.Cut(string(page), beginSchemas)
	_, after, ended := strings.Cut(rest, endSchemas)
	if !ok || !ended {
		t.Fatal("docs/webhooks.md has no place for the schemas")
	}
	want := before + beginSchemas + schemaText(t) + endSchemas + after
	if *update {
		must(t, os.WriteFile(path, []byte(want), 0o600))
		return
	}
	if string(page) != want {
		t.Error(
			"docs/webhooks.md does not have the schemas that are served; go test ./server/webhook -run TestSchemasStandOnThePage -update writes them",
		)
	}
}

// schemaText is a block for each schema, with a line for each property.
func schemaText(t *testing.T) string {
	var served struct {
		Schemas map[string]json.RawMessage `json:"schemas"`
	}
	must(t, json.Unmarshal(webhook.Schemas(), &served))
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(served.Schemas)) {
		text := string(served.Schemas[name])
		for _, where := range []string{`"title":`, `"properties":{"type":{"const"`, `"timestamp":`, `"data":`} {
			text = strings.ReplaceAll(text, where, "\n "+where)
		}
		head, data, _ := strings.Cut(text, "\n \"data\":")
		data = strings.ReplaceAll(data, `"},"`, "\"},\n  \"")
		data = strings.ReplaceAll(data, `"properties":{`, "\"properties\":{\n  ")
		fmt.Fprintf(&b, "```json schema\n%s\n \"data\":%s\n```\n\n", head, data)
	}
	return "\n" + b.String()
}

// TestReceiversOfThePageVerifyMessages runs the receivers as they stand on the page.
func TestReceiversOfThePageVerifyMessages(t *testing.T) {
	t.Parallel()
	for kind, program := range map[string][]string{"python webhook": {"python3"}, "js webhook": {"node"}} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(program[0]); err != nil {
				if os.Getenv("CI") != "" {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			blocks := pagetest.Blocks(t, kind)
			if len(blocks) != 1 {
				t.Fatalf("there are %d blocks", len(blocks))
			}
			file := filepath.Join(t.TempDir(), "receiver.cjs")
			must(t, os.WriteFile(file, []byte(blocks[0].Text), 0o600))
			at, said := runReceiver(t, append(program, file))
			s := sender(t, webhook.SenderConfig{URL: at})
			for range 2 { // it comes twice
				if out := send(t, s, secretB, secretA); out.Status != 204 {
					t.Fatalf("a signed message: %+v", out)
				}
			}
			if out := send(t, s, secretB); out.Status != 401 {
				t.Errorf("signed with another secret: %+v", out)
			}
			for name, change := range map[string]func(*http.Request){
				"an old message":    func(r *http.Request) { sign(t, r, time.Now().Add(-10*time.Minute)) },
				"one of the future": func(r *http.Request) { sign(t, r, time.Now().Add(10*time.Minute)) },
				"another id":        func(r *http.Request) { sign(t, r, time.Now()); r.Header.Set("Webhook-Id", "evt_2_a") },
				"another body": func(r *http.Request) {
					sign(t, r, time.Now())
					r.Body, r.ContentLength = io.NopCloser(strings.NewReader(message+" ")), int64(len(message)+1)
				},
				"no signature": func(*http.Request) {},
			} {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at, strings.NewReader(message))
				must(t, err)
				change(r)
				answer, err := http.DefaultClient.Do(r)
				must(t, err)
				answer.Body.Close()
				if answer.StatusCode != 401 {
					t.Errorf("%s: %d", name, answer.StatusCode)
				}
			}
			if got := strings.Count(said(), "token.created"); got != 1 {
				t.Errorf("the message was handled %d times", got)
			}
		})
	}
}

// sign signs the message of a request as of a time.
func sign(t *testing.T, r *http.Request, at time.Time) {
	t.Helper()
	w, err := standardwebhooks.NewWebhook(secretA)
	must(t, err)
	signature, err := w.Sign("evt_1_a", at, []byte(message))
	must(t, err)
	r.Header.Set("Webhook-Id", "evt_1_a")
	r.Header.Set("Webhook-Timestamp", fmt.Sprint(at.Unix()))
	r.Header.Set("Webhook-Signature", signature)
}

// runReceiver runs a receiver, and returns its URL and, once it has ended, what it printed.
func runReceiver(t *testing.T, command []string) (url string, said func() string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(addr)
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "WEBHOOK_SECRET="+secretA, "PORT="+port)
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	end := func() string {
		cancel()
		_ = cmd.Wait()
		return out.String()
	}
	t.Cleanup(func() { end() })
	deadline, poll := time.After(time.Minute), time.NewTicker(20*time.Millisecond)
	defer poll.Stop()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			c.Close()
			return "http://" + addr + "/", end
		}
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("the receiver does not listen: %v\n%s", err, end())
		}
	}
}
