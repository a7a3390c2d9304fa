package connection

import (
	"container/list"
	"net"
	"testing"
	"time"
)

// stuck is a connection whose peer reads nothing: a Write lasts until release. It tells when it is read from.
type stuck struct {
	net.Conn
	writing, read, release chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	s.writing <- struct{}{}
	<-s.release
	return len(p), nil
}

func (s *stuck) Read([]byte) (int, error) {
	s.read <- struct{}{}
	return 0, nil
}

// once is a listener of one connection.
type once struct {
	net.Listener
	conn net.Conn
}

func (o once) Accept() (net.Conn, error) { return o.conn, nil }

func TestAConnectionThatDoesNotReadIsNotReadFrom(t *testing.T) {
	t.Parallel()
	for name, known := range map[string]bool{"without a credential": false, "with one": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := &stuck{writing: make(chan struct{}), read: make(chan struct{}), release: make(chan struct{})}
			g := &Gate{
				Listener:     once{conn: raw},
				Max:          1,
				MaxAnonymous: 1,
				HTTP2:        true,
				Anonymous:    list.New(),
				Closed:       func(string) {},
			}
			accepted, err := g.Accept()
			if err != nil {
				t.Fatal(err)
			}
			c, _ := accepted.(*Connection)
			if known {
				c.Authenticated()
			}
			ended := make(chan struct{}, 2)
			go func() { _, _ = c.Write([]byte("x")); ended <- struct{}{} }()
			<-raw.writing
			go func() { _, _ = c.Read(make([]byte, 1)); ended <- struct{}{} }()
			if known {
				<-raw.read // though the Write is stuck
				close(raw.release)
			} else {
				select {
				case <-raw.read:
					t.Error("it is read from while it reads nothing")
					close(raw.release)
				case <-time.After(200 * time.Millisecond): // enough for what must not happen
					close(raw.release)
					<-raw.read // and then it is read from again
				}
			}
			<-ended
			<-ended
		})
	}
}
