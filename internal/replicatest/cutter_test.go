package replicatest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// cut is what happens to a connection in the middle of a commit.
type cut int

const (
	none cut = iota
	// beforeCommit: the commit does not arrive.
	beforeCommit
	// afterCommit: it arrives and is done, and the answer is lost.
	afterCommit
)

// cutter stands between a replica and the database, and reads what the replica says, so that it can cut a connection
// just when a transaction is committed.
type cutter struct {
	listener net.Listener
	to       string

	mu     sync.Mutex
	next   cut  // of the next commit
	last   bool // nobody gets through after that
	closed bool // nobody new gets through
	cuts   int
	all    map[net.Conn]bool
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c := &cutter{listener: l, to: to, all: map[net.Conn]bool{}}
	var g sync.WaitGroup
	g.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			g.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		c.close()
		g.Wait()
	})
	return c
}

func (c *cutter) addr() string { return c.listener.Addr().String() }

// arm has the next commit cut. When it is the last, nobody new gets through from then on.
func (c *cutter) arm(next cut, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next, c.last = next, last
}

// close ends every connection and lets none through.
func (c *cutter) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.all {
		conn.Close()
	}
}

func (c *cutter) open() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = false
}

// done is how many commits were cut.
func (c *cutter) done() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cuts
}

// keep notes a connection, unless nobody gets through.
func (c *cutter) keep(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		conn.Close()
		return false
	}
	c.all[conn] = true
	return true
}

func (c *cutter) drop(conn net.Conn) {
	conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, conn)
}

// take returns what is to happen to a commit that is being said.
func (c *cutter) take() cut {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.next
	if c.next = none; next != none {
		c.cuts++
		c.closed = c.closed || c.last
	}
	return next
}

// serve carries a connection.
func (c *cutter) serve(client net.Conn) {
	if !c.keep(client) {
		return
	}
	defer c.drop(client)
	server, err := net.Dial("tcp", c.to)
	if err != nil || !c.keep(server) {
		return
	}
	defer c.drop(server)
	answers := &answers{to: client}
	var g sync.WaitGroup
	g.Go(func() {
		_, _ = io.Copy(answers, server) // its end is the connection's
		client.Close()
	})
	_ = c.forward(client, server, answers) // the same
	server.Close()
	g.Wait()
}

// forward carries what the client says, message by message
// (https://www.postgresql.org/docs/current/protocol-message-formats.html).
func (c *cutter) forward(client io.Reader, server io.Writer, answers *answers) error {
	startup, err := message(client, 0)
	if err != nil {
		return err
	}
	if _, err := server.Write(startup); err != nil {
		return err
	}
	statements := map[string]string{} // prepared ones, by name
	fate := none
	for {
		m, err := message(client, 1)
		if err != nil {
			return err
		}
		if commits(m, statements) {
			fate = c.take()
		}
		if fate == beforeCommit {
			return errors.New("cut before the commit")
		}
		if m[0] == 'S' && fate == afterCommit { // from this message on the server is at it
			answers.swallow()
		}
		if _, err := server.Write(m); err != nil {
			return err
		}
	}
}

// commits reports whether a message has the server commit, and notes prepared statements.
func commits(m []byte, statements map[string]string) bool {
	body := m[5:]
	switch m[0] {
	case 'P': // Parse: name, statement
		name, rest, _ := bytes.Cut(body, []byte{0})
		statement, _, _ := bytes.Cut(rest, []byte{0})
		statements[string(name)] = string(statement)
	case 'B': // Bind: portal, name
		_, rest, _ := bytes.Cut(body, []byte{0})
		name, _, _ := bytes.Cut(rest, []byte{0})
		return strings.EqualFold(statements[string(name)], "commit")
	case 'Q':
		return strings.EqualFold(strings.TrimRight(string(body), "\x00"), "commit")
	}
	return false
}

// message reads one message with its length, and a type before it or not.
func message(r io.Reader, kind int) ([]byte, error) {
	head := make([]byte, kind+4)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head[kind:]))
	if n < 4 || n > 1<<20 {
		return nil, errors.New("this is no message of PostgreSQL's")
	}
	m := append(head, make([]byte, n-4)...)
	_, err := io.ReadFull(r, m[kind+4:])
	return m, err
}

// answers carries what the server says, until an answer is to be lost.
type answers struct {
	mu   sync.Mutex
	to   net.Conn
	lost bool
}

func (a *answers) swallow() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost = true
}

// Write fails, and so ends the connection, once the answer is there that is to be lost.
func (a *answers) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lost {
		return 0, errors.New("the answer is lost")
	}
	return a.to.Write(p)
}
