// Command driver puts the Go library, patd/client, through the conformance suite: see sdk/conformance/README.md.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"patd/client"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// command is one line of the input.
type command struct {
	ID       int      `json:"id"`
	Do       string   `json:"do"`
	GRPC     string   `json:"grpc"`
	Token    string   `json:"token"`
	Audience string   `json:"audience"`
	Scopes   []string `json:"scopes"`
	IP       string   `json:"ip"`

	MaxAge     int64 `json:"max_age_ms"`
	MaxEntries int   `json:"max_entries"`
	Timeout    int64 `json:"timeout_ms"`
	Report     int64 `json:"report_every_ms"`
	Clock      int64 `json:"clock_ms"`
	Wall       int64 `json:"wall_ms"`

	Tokens []string `json:"tokens"`
	Loops  int      `json:"loops"`
}

// answer is one line of the output. Absent members are left out.
type answer struct {
	ID    int    `json:"id"`
	OK    bool   `json:"ok,omitempty"`
	Error string `json:"error,omitempty"`
	Text  string `json:"message,omitempty"`

	Protocol int      `json:"protocol,omitempty"`
	Library  string   `json:"library,omitempty"`
	Speaks   string   `json:"speaks,omitempty"`
	Can      []string `json:"can,omitempty"`

	Decision string   `json:"decision,omitempty"`
	Reason   string   `json:"reason,omitempty"`
	TokenID  string   `json:"token_id,omitempty"`
	User     string   `json:"user,omitempty"`
	Scopes   []string `json:"scopes,omitempty"`
	Missing  []string `json:"missing,omitempty"`

	Watching  *bool   `json:"watching,omitempty"`
	Entries   *int    `json:"entries,omitempty"`
	Dropped   *uint64 `json:"dropped_uses,omitempty"`
	Plausible *bool   `json:"plausible,omitempty"`
	Checks    int64   `json:"checks,omitempty"`
	Refused   int64   `json:"refused,omitempty"`
}

// driver has one verifier at a time.
type driver struct {
	mu       sync.Mutex
	verifier *client.Verifier
	conn     *grpc.ClientConn
	offset   atomic.Int64 // of the clock, in milliseconds
	load     *load

	writing sync.Mutex
	out     *json.Encoder
}

// run serves commands until the input ends.
func run(in io.Reader, out io.Writer) error {
	d := &driver{out: json.NewEncoder(out)}
	var running sync.WaitGroup
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return fmt.Errorf("read a command: %w", err)
		}
		if c.Do == "configure" { // before the checks that follow it
			d.write(c, d.configure(c))
			continue
		}
		running.Go(func() { d.write(c, d.do(c)) })
	}
	running.Wait()
	d.loads(command{})
	d.close()
	return lines.Err()
}

func (d *driver) write(c command, a answer) {
	a.ID = c.ID
	d.writing.Lock()
	defer d.writing.Unlock()
	_ = d.out.Encode(a) // a failure means that the runner has gone, and then the input ends
}

func (d *driver) do(c command) answer {
	switch c.Do {
	case "hello":
		return answer{Protocol: 1, Library: "patd/client for Go", Speaks: "grpc", Can: []string{"clock", "load"}}
	case "check":
		return d.check(c)
	case "status":
		return d.status()
	case "load":
		return d.loads(c)
	case "clock":
		d.offset.Store(c.Wall)
		return answer{OK: true}
	case "form":
		return plausible(c.Token)
	case "close":
		return d.close()
	default:
		return answer{Error: "unsupported"}
	}
}

func (d *driver) now() time.Time {
	return time.Now().Add(time.Duration(d.offset.Load()) * time.Millisecond)
}

func (d *driver) configure(c command) answer {
	d.close()
	d.offset.Store(c.Clock)
	token := func(context.Context) (string, error) { return c.Token, nil }
	conn, err := client.Dial(c.GRPC, client.ServiceToken(token))
	if err != nil {
		return answer{Error: "invalid", Text: err.Error()}
	}
	v, err := client.New(conn, client.Config{
		Audience: c.Audience, MaxAge: ms(c.MaxAge), MaxEntries: c.MaxEntries, Timeout: ms(c.Timeout),
		ReportEvery: cmp.Or(ms(c.Report), -1), Now: d.now,
	})
	if err != nil {
		return answer{Error: "invalid", Text: errors.Join(err, conn.Close()).Error()}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.verifier, d.conn = v, conn
	return answer{OK: true}
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// close closes the verifier. It stays, and refuses what comes later.
func (d *driver) close() answer {
	d.mu.Lock()
	v, conn := d.verifier, d.conn
	d.conn = nil
	d.mu.Unlock()
	if conn == nil {
		return answer{OK: true}
	}
	if err := errors.Join(v.Close(), conn.Close()); err != nil {
		return answer{Error: "unavailable", Text: err.Error()}
	}
	return answer{OK: true}
}

func (d *driver) check(c command) answer {
	d.mu.Lock()
	v := d.verifier
	d.mu.Unlock()
	if v == nil {
		return answer{Error: "closed"}
	}
	call := client.Call{Audience: c.Audience, Scopes: c.Scopes}
	if c.IP != "" {
		ip, err := netip.ParseAddr(c.IP)
		if err != nil {
			return answer{Error: "invalid", Text: err.Error()}
		}
		call.ClientIP = ip
	}
	r, err := v.Verify(context.Background(), c.Token, call)
	if err != nil {
		return answer{Error: class(err), Text: err.Error()}
	}
	out := answer{Decision: r.Decision.String(), Reason: r.Decision.Reason(), Missing: r.Missing}
	if r.Token != nil {
		out.TokenID, out.User, out.Scopes = r.Token.ID, r.Token.User, r.Token.Scopes
	}
	return out
}

// class returns the suite's word for a fault.
func class(err error) string {
	if errors.Is(err, client.ErrClosed) {
		return "closed"
	}
	var of interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &of) {
		return "unavailable"
	}
	switch of.GRPCStatus().Code() {
	case codes.Unauthenticated, codes.PermissionDenied:
		return "forbidden"
	case codes.InvalidArgument:
		return "invalid"
	default:
		return "unavailable"
	}
}

func (d *driver) status() answer {
	d.mu.Lock()
	v := d.verifier
	d.mu.Unlock()
	if v == nil {
		return answer{Error: "closed"}
	}
	s := v.Stats()
	return answer{Watching: &s.Watching, Entries: &s.Entries, Dropped: &s.DroppedUses}
}

// nobody is a connection on which nothing can be asked.
type nobody struct{}

var errAsked = errors.New("asked")

// Invoke fails.
func (nobody) Invoke(context.Context, string, any, any, ...grpc.CallOption) error { return errAsked }

// NewStream fails.
func (nobody) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errAsked
}

// plausible finds out from a verifier that can ask nobody whether it would ask about a text.
func plausible(text string) answer {
	v, err := client.New(nobody{}, client.Config{ReportEvery: -1})
	if err != nil {
		return answer{Error: "invalid", Text: err.Error()}
	}
	_, err = v.Verify(context.Background(), text, client.Call{})
	asked := err != nil
	return answer{Plausible: &asked, Error: closed(v)}
}

func closed(v *client.Verifier) string {
	if v.Close() != nil {
		return "unavailable"
	}
	return ""
}
