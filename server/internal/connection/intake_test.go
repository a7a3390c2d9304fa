package connection

import (
	"bytes"
	"container/list"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"patd/internal/waittest"

	"golang.org/x/net/http2/hpack"
	"pgregory.net/rapid"
)

// TestFieldsAreCountedAsTheyAreDecoded holds the counter to the decoder, however a block arrives.
func TestFieldsAreCountedAsTheyAreDecoded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var block bytes.Buffer
		e := hpack.NewEncoder(&block)
		decoded := 0
		d := hpack.NewDecoder(4096, func(hpack.HeaderField) { decoded++ })
		var c fieldCounter
		for range rapid.IntRange(1, 3).Draw(t, "blocks") {
			block.Reset()
			fewest := 0
			if rapid.Bool().Draw(t, "resized") {
				e.SetMaxDynamicTableSize(uint32(rapid.IntRange(0, 4096).Draw(t, "size")))
				fewest = 1 // the encoder writes the new size before the next field, and no block begins without one
			}
			for range rapid.IntRange(fewest, 20).Draw(t, "fields") {
				_ = e.WriteField(hpack.HeaderField{
					Name: rapid.SampledFrom([]string{":method", "x", "accept", strings.Repeat("n", 200)}).
						Draw(t, "name"),
					Value: rapid.OneOf(rapid.SampledFrom([]string{"", "GET", strings.Repeat("~", 40_000)}), rapid.String()).
						Draw(t, "value"),
					Sensitive: rapid.Bool().Draw(t, "sensitive"),
				})
			}
			_, err := d.Write(block.Bytes())
			if err == nil {
				err = d.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			for rest := block.Bytes(); len(rest) > 0; {
				n := rapid.IntRange(1, len(rest)).Draw(t, "part")
				c.add(rest[:n])
				rest = rest[n:]
			}
		}
		if c.n != decoded || c.skip != 0 || c.strings != 0 || c.shift != 0 {
			t.Fatalf("%d fields were counted, and %d decoded; %+v", c.n, decoded, c)
		}
	})
}

// ledger is a Memory with little room.
type ledger struct{ room atomic.Int64 }

func (l *ledger) Take(n int) error {
	if l.room.Add(-int64(n)) < 0 {
		l.room.Add(int64(n))
		return errors.New("no room")
	}
	return nil
}

func (l *ledger) Give(n int) { l.room.Add(int64(n)) }

// pipe is a connection of a gate, the peer's end of it, and what was read from it so far.
func pipe(t *testing.T, http2 bool, m Memory) (c *Connection, peer net.Conn, got *atomic.Int64, ended <-chan error) {
	t.Helper()
	ours, theirs := net.Pipe()
	g := &Gate{
		Listener:     once{conn: ours},
		Max:          1,
		MaxAnonymous: 1,
		HTTP2:        http2,
		Anonymous:    list.New(),
		Closed:       func(string) {},
		Memory:       m,
	}
	accepted, err := g.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, _ = accepted.(*Connection)
	t.Cleanup(func() { _ = c.Close(); _ = theirs.Close() })
	got = new(atomic.Int64)
	end := make(chan error, 1)
	go func() {
		for buffer := make([]byte, 32<<10); ; {
			n, err := c.Read(buffer)
			got.Add(int64(n))
			if err != nil {
				end <- err
				return
			}
		}
	}()
	return c, theirs, got, end
}

// reads waits until a number of bytes was read, and then for more, which must not come.
func reads(t *testing.T, got *atomic.Int64, want int, why string) {
	t.Helper()
	waittest.Until(t, why, func() bool { return got.Load() >= int64(want) })
	<-time.After(50 * time.Millisecond) // enough for what must not happen
	if n := got.Load(); n != int64(want) {
		t.Fatalf("%s: %d bytes were read, want %d", why, n, want)
	}
}

func framed(kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	return append(
		[]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, 0, 0, byte(stream >> 8), byte(stream)},
		payload...)
}

// indexed is a block of n fields, a byte each.
func indexed(n int) []byte { return bytes.Repeat([]byte{0x82}, n) }

func TestNoRequestIsReadBeforeTheOneBeforeItIsTakenOver(t *testing.T) {
	t.Parallel()
	for name, taken := range map[string]func(*Connection){
		"by a handler":        func(c *Connection) { c.Handled() },
		"by its response":     func(c *Connection) { _, _ = c.Write(framed(frameHeaders, flagEndHeaders, 1, indexed(1))) },
		"by its rejection":    func(c *Connection) { _, _ = c.Write(framed(frameReset, 0, 1, make([]byte, 4))) },
		"its caller is known": func(c *Connection) { c.Authenticated() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, peer, got, _ := pipe(t, true, nil)
			first := append(make([]byte, lenPreface), framed(frameHeaders, 0, 1, indexed(3))...)
			first = append(first, framed(frameContinuation, flagEndHeaders, 1, indexed(3))...)
			second := framed(
				frameHeaders,
				flagEndHeaders|flagPadded|flagPriority,
				3,
				append([]byte{2, 0, 0, 0, 0, 0}, 0x82, 0, 0),
			)
			go func() { _, _ = peer.Write(append(bytes.Clone(first), second...)) }()
			reads(t, got, len(first), "before")
			go func() { _, _ = io.Copy(io.Discard, peer) }()
			taken(c)
			reads(t, got, len(first)+len(second), "after")
		})
	}
}

func TestDataOfAnUnknownPeerIsReadAsFarAsItIsAskedFor(t *testing.T) {
	t.Parallel()
	c, peer, got, _ := pipe(t, true, nil)
	head := append(make([]byte, lenPreface), framed(frameHeaders, flagEndHeaders, 1, indexed(3))...)
	frame := framed(frameData, 0, 1, make([]byte, 16<<10))
	go func() { _, _ = peer.Write(append(bytes.Clone(head), bytes.Repeat(frame, 10)...)) }()
	reads(t, got, len(head), "before a handler has it")
	c.Handled()
	reads(t, got, len(head)+dataShare+2*frameHead, "what is read ahead")
	c.Grant(100)
	reads(t, got, len(head)+dataShare+2*frameHead+100, "what was asked for")
	go func() { _, _ = io.Copy(io.Discard, peer) }()
	_, _ = c.Write(framed(frameData, flagEndStream, 1, nil))
	reads(t, got, len(head)+10*len(frame), "once the stream has ended, and holds nothing")
}

func TestTheHeadOfAnUnknownPeerIsChargedBeforeItIsWhole(t *testing.T) {
	t.Parallel()
	text := []byte{0, 1, 'x', 0x7f, 0xe1, 0xd3, 3} // a name, and the length of 60 000 bytes
	for name, sent := range map[string][]byte{
		"HTTP/1.1, text":  []byte("GET / HTTP/1.1\r\nx: " + strings.Repeat("x", 60<<10)),
		"HTTP/1.1, lines": []byte("GET / HTTP/1.1\r\n" + strings.Repeat("x:\n", 1000)),
		"HTTP/2, text":    append(append(make([]byte, lenPreface), framed(frameHeaders, 0, 1, append(text, make([]byte, 16000)...))...), bytes.Repeat(framed(frameContinuation, 0, 1, make([]byte, 16000)), 2)...),
		"HTTP/2, fields":  append(make([]byte, lenPreface), framed(frameHeaders, 0, 1, indexed(1000))...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, room := range []int64{1 << 20, 10 << 10} {
				m := &ledger{}
				m.room.Store(room)
				c, peer, got, ended := pipe(t, strings.HasPrefix(name, "HTTP/2"), m)
				go func() { _, _ = peer.Write(sent) }()
				if room < 1<<20 {
					go func() { _, _ = io.Copy(io.Discard, peer) }()
					if err := <-ended; err == nil {
						t.Error("the connection goes on")
					}
				} else {
					reads(t, got, len(sent), "with room")
					if left := m.room.Load(); left > room-(10<<10) {
						t.Errorf("%d bytes were charged", room-left)
					}
				}
				_ = c.Close()
				if left := m.room.Load(); left != room {
					t.Errorf("%d bytes of %d are left in the end", left, room)
				}
			}
		})
	}
}
