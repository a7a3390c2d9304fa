package proctest

import (
	"bytes"
	"fmt"
	"regexp"
	"sync"
	"time"
)

// Output keeps what a process writes, and lets others wait for a text in it. The zero value is not one: see NewOutput.
type Output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	ended   bool
	changed chan struct{} // closed and made anew by each write
}

// NewOutput returns an empty one.
func NewOutput() *Output { return &Output{changed: make(chan struct{})} }

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(p)
}

// End says that the process has ended: nobody waits any longer.
func (o *Output) End() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	close(o.changed)
	o.changed = make(chan struct{})
}

// String returns what was written.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Tail returns the end of what was written.
func (o *Output) Tail() string {
	text := o.String()
	return text[max(0, len(text)-4096):]
}

// Await waits for a match and returns it with its groups. It is an error if the process ends without, or patience does.
func (o *Output) Await(patience time.Duration, re *regexp.Regexp) ([]string, error) {
	deadline := time.After(patience)
	for {
		o.mu.Lock()
		text, ended, changed := o.text.String(), o.ended, o.changed
		o.mu.Unlock()
		if m := re.FindStringSubmatch(text); m != nil {
			return m, nil
		}
		if ended {
			return nil, fmt.Errorf("it ended without %q; it said\n%s", re, text)
		}
		select {
		case <-changed:
		case <-deadline:
			return nil, fmt.Errorf("no %q after %s; it said\n%s", re, patience, text)
		}
	}
}

// Ready is the line by which patd says where it serves: its groups are the addresses of HTTP and gRPC.
func Ready() *regexp.Regexp {
	return regexp.MustCompile(`msg"?[:=]"?ready"?[ ,]"?rest"?[:=]"?([^" ]+)"?[ ,]"?grpc"?[:=]"?([^"\s]+)`)
}
