package connection

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
)

const (
	// maxHandshake is how much of a TLS handshake is read.
	maxHandshake = 32 << 10
	// readAhead is the read buffer of a known HTTP/2 connection.
	readAhead = 32 << 10
)

// Write writes to the peer.
func (c *Connection) Write(p []byte) (int, error) {
	if c.Known.Load() {
		return c.Conn.Write(p) //nolint:wrapcheck // it stands for the connection
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.handshake(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	c.intake.wrote(p[:n], c.gate.Memory)
	return n, err //nolint:wrapcheck // it stands for the connection
}

// Read reads from the peer. From an unknown peer it reads what there is room for, and waits until there is: for a
// handler to take over the request that it has sent, for the data that it sends to be wanted, and for what is written
// to it to be read.
func (c *Connection) Read(p []byte) (int, error) {
	if !c.started {
		if err := c.start(); err != nil {
			return 0, err
		}
	}
	if c.Known.Load() {
		return c.readKnown(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	c.writing.Lock()
	c.writing.Unlock() //nolint:staticcheck // SA2001: it waits for the Write
	n, err := c.Conn.Read(p[:c.intake.room(len(p))])
	if full := c.intake.took(p[:n], c.gate.Memory); full != nil {
		return 0, c.refuse(full)
	}
	return n, err //nolint:wrapcheck // it stands for the connection
}

// readKnown reads from a known peer. gRPC has no buffer of its own, since it would be one for unknown peers too.
func (c *Connection) readKnown(p []byte) (int, error) {
	if !c.gate.HTTP2 {
		return c.Conn.Read(p) //nolint:wrapcheck // it stands for the connection
	}
	if c.ahead == nil {
		c.ahead = bufio.NewReaderSize(c.Conn, readAhead)
	}
	return c.ahead.Read(p) //nolint:wrapcheck // it stands for the connection
}

// start shakes hands, and learns which protocol the peer speaks.
func (c *Connection) start() error {
	if err := c.handshake(); err != nil {
		return err
	}
	if c.started = true; !c.gate.HTTP2 {
		t, ok := c.Conn.(*tls.Conn)
		c.intake.start(ok && t.ConnectionState().NegotiatedProtocol == "h2")
	}
	return nil
}

// handshake shakes hands, if that is still to be done.
func (c *Connection) handshake() error {
	t, ok := c.Conn.(*tls.Conn)
	if !ok {
		return nil
	}
	err := t.HandshakeContext(context.Background()) // the connection has a deadline
	if err == nil {
		if h, ok := t.NetConn().(*handshaking); ok {
			h.done.Store(true)
		}
		return nil
	}
	if plain := (tls.RecordHeaderError{}); !c.gate.HTTP2 && errors.As(err, &plain) && plain.Conn != nil {
		_, _ = io.WriteString(plain.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nThis server speaks HTTPS.\n")
	}
	return fmt.Errorf("shake hands: %w", err)
}

// refuse ends a connection whose request has no room, and returns the error of its Read.
func (c *Connection) refuse(cause error) error {
	c.gate.Closed("memory")
	if !c.intake.http2 {
		_, _ = io.WriteString(
			c.Conn,
			"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		)
		return io.EOF
	}
	return cause
}

// CloseWrite ends what is written, so that the peer reads a last response before the connection is closed.
func (c *Connection) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite() //nolint:wrapcheck // it stands for the connection
	}
	return nil
}

// handshaking bounds what is read for a TLS handshake.
type handshaking struct {
	net.Conn
	left int
	done atomic.Bool
}

var errHandshake = errors.New("the TLS handshake is too long")

// Read reads from the peer.
func (h *handshaking) Read(p []byte) (int, error) {
	if h.done.Load() {
		return h.Conn.Read(p) //nolint:wrapcheck // it stands for the connection
	}
	if h.left <= 0 {
		return 0, errHandshake
	}
	n, err := h.Conn.Read(p[:min(len(p), h.left)])
	h.left -= n
	return n, err //nolint:wrapcheck // it stands for the connection
}
