package clienttest

import (
	"context"
	"net"
	"sync"
)

// wire is all connections of a server. It can be cut, or hang: then connections stay up and no byte gets through.
type wire struct {
	mu    sync.Mutex
	open  chan struct{} // closed: bytes flow
	down  bool
	conns map[*pipe]bool
}

func newWire() *wire {
	w := &wire{open: make(chan struct{}), conns: map[*pipe]bool{}}
	close(w.open)
	return w
}

// pipe is one connection, at the client's end.
type pipe struct {
	net.Conn
	wire   *wire
	closed chan struct{}
	once   sync.Once
}

// dial wraps a connection of the given dial function.
func (w *wire) dial(ctx context.Context, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	w.mu.Lock()
	down := w.down
	w.mu.Unlock()
	if down {
		return nil, &net.OpError{Op: "dial", Net: "bufconn", Err: net.ErrClosed}
	}
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	p := &pipe{Conn: conn, wire: w, closed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[p] = true
	return p, nil
}

// hang stops the bytes.
func (w *wire) hang() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = make(chan struct{})
}

// release lets the bytes through that were held back.
func (w *wire) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.open:
	default:
		close(w.open)
	}
}

// cut ends all connections; while down, new ones are refused.
func (w *wire) cut(down bool) {
	w.mu.Lock()
	w.down = down
	conns := w.conns
	w.conns = map[*pipe]bool{}
	w.mu.Unlock()
	for p := range conns {
		_ = p.Close()
	}
}

// wait waits until bytes flow.
func (p *pipe) wait() error {
	p.wire.mu.Lock()
	open := p.wire.open
	p.wire.mu.Unlock()
	select {
	case <-open:
		return nil
	case <-p.closed:
		return net.ErrClosed
	}
}

// Read reads once bytes flow.
func (p *pipe) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if waited := p.wait(); waited != nil {
		return 0, waited
	}
	return n, err
}

// Write writes once bytes flow.
func (p *pipe) Write(b []byte) (int, error) {
	if err := p.wait(); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

// Close closes the connection.
func (p *pipe) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Conn.Close()
}
