package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"
)

// patience bounds every wait for a driver or patd. Nothing takes nearly as long, unless it is broken.
const patience = 30 * time.Second

// driver is a running test program of a library.
type driver struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	ended  chan struct{}
	errors tail // what it wrote to standard error

	mu      sync.Mutex
	next    int
	waiting map[int]chan result
	failed  error // it broke the protocol, or has ended

	hello hello
}

// hello is the answer to the first command.
type hello struct {
	Protocol int
	Library  string
	Speaks   string
	Can      []string
}

// result is an answer of a driver.
type result struct {
	OK        bool     `json:"ok"`
	Error     string   `json:"error"`
	Text      string   `json:"message"`
	Decision  string   `json:"decision"`
	Reason    string   `json:"reason"`
	TokenID   string   `json:"token_id"`
	User      string   `json:"user"`
	Scopes    []string `json:"scopes"`
	Missing   []string `json:"missing"`
	Memory    *bool    `json:"from_memory"`
	Watching  bool     `json:"watching"`
	Entries   int      `json:"entries"`
	Plausible *bool    `json:"plausible"`
	Checks    int      `json:"checks"`
	Refused   int      `json:"refused"`

	Everywhere string `json:"everywhere"`
	Address    string `json:"address"`

	raw json.RawMessage
}

// startDriver starts a command, and says hello.
func startDriver(command []string) (*driver, error) {
	d := &driver{ended: make(chan struct{}), waiting: map[int]chan result{}}
	//nolint:gosec // it is what the user asks for
	d.cmd = exec.CommandContext(
		context.Background(),
		command[0],
		command[1:]...)
	d.cmd.Stderr = &d.errors
	var err error
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the driver: %w", err)
	}
	go d.read(out)
	r, err := d.do(order{"do": "hello"})
	if err == nil {
		err = json.Unmarshal(r.raw, &d.hello)
	}
	switch {
	case err != nil:
	case d.hello.Protocol != 1:
		err = fmt.Errorf("it speaks protocol %d, not 1", d.hello.Protocol)
	case d.hello.Speaks != "http" && d.hello.Speaks != "grpc":
		err = fmt.Errorf(`it speaks %q, neither "http" nor "grpc"`, d.hello.Speaks)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hello: %w; it wrote\n%s", err, d.errors.text()), d.stop())
	}
	return d, nil
}

// order is a command to a driver.
type order map[string]any

// read passes responses on until the output ends.
func (d *driver) read(out io.Reader) {
	defer close(d.ended)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	var broken error
	for broken == nil && lines.Scan() {
		broken = d.take(lines.Bytes())
	}
	if broken == nil {
		broken = errors.Join(errors.New("the driver has ended"), lines.Err())
	}
	d.mu.Lock()
	d.failed = broken
	for id, to := range d.waiting {
		close(to)
		delete(d.waiting, id)
	}
	d.mu.Unlock()
	_, _ = io.Copy(io.Discard, out)
}

func (d *driver) take(line []byte) error {
	var is struct{ ID int }
	var r result
	if err := errors.Join(json.Unmarshal(line, &is), json.Unmarshal(line, &r)); err != nil {
		return fmt.Errorf("the driver wrote a line that is no answer: %w", err)
	}
	r.raw = append(r.raw, line...)
	d.mu.Lock()
	defer d.mu.Unlock()
	to := d.waiting[is.ID]
	if to == nil {
		return fmt.Errorf("the driver responded to %d, which was not asked or was responded to before", is.ID)
	}
	delete(d.waiting, is.ID)
	to <- r
	return nil
}

// begin sends a command. The channel is closed without an answer if the driver fails.
func (d *driver) begin(c order) (<-chan result, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed != nil {
		return nil, d.failed
	}
	d.next++
	c["id"] = d.next
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	to := make(chan result, 1)
	d.waiting[d.next] = to
	if _, err := d.in.Write(append(text, '\n')); err != nil {
		return nil, fmt.Errorf("tell the driver: %w", err)
	}
	return to, nil
}

// do sends a command and waits for its answer.
func (d *driver) do(c order) (result, error) {
	to, err := d.begin(c)
	if err != nil {
		return result{}, err
	}
	return d.wait(to)
}

func (d *driver) wait(to <-chan result) (result, error) {
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case r, ok := <-to:
		if !ok {
			d.mu.Lock()
			defer d.mu.Unlock()
			return r, d.failed
		}
		return r, nil
	case <-late.C:
		return result{}, errors.New("the driver does not answer")
	}
}

// stop ends the input and waits for the driver to end. An error means that it did not end by itself, or not well.
func (d *driver) stop() error {
	_ = d.in.Close() // it may have ended
	select {
	case <-d.ended:
	case <-time.After(5 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.ended
		_ = d.cmd.Wait()
		return errors.New("the driver does not end with its input")
	}
	if err := d.cmd.Wait(); err != nil {
		return fmt.Errorf("the driver: %w", err)
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

// Write keeps the end of b.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	t.kept = t.kept[max(0, len(t.kept)-4096):]
	return len(b), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}
