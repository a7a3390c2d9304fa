package rival

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
)

// Redis starts a Redis that writes nothing to disk. GET of a token's digest returns what patd would say of it, as it
// was when it was written: no caller is authenticated, and nothing is decided.
func Redis(ctx context.Context, c Config) (*Server, error) {
	s, conns, err := startRedis(ctx, c)
	if err != nil {
		return nil, err
	}
	work, err := redisWork(conns, c.Tokens)
	return s.at([]Work{work}, err)
}

// startRedis opens a connection for each worker, as pools of connections do. The server's Stop closes them.
func startRedis(ctx context.Context, c Config) (*Server, []*redisConn, error) {
	at, err := freeAddresses(ctx, 1)
	if err != nil {
		return nil, nil, err
	}
	host, port, err := net.SplitHostPort(at[0])
	if err != nil {
		return nil, nil, err
	}
	ping := func(ctx context.Context) error {
		conn, err := dialRedis(ctx, at[0])
		if err != nil {
			return err
		}
		_, err = conn.do("PING")
		return errors.Join(err, conn.Close())
	}
	args := []string{"--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", c.Dir}
	s, err := start(ctx, "Redis", c, nil, ping, args...)
	if err != nil {
		return nil, nil, err
	}
	var conns []*redisConn
	s.close = func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}
	for range max(c.Workers, 1) {
		conn, err := dialRedis(ctx, at[0])
		if err != nil {
			_, err = s.at(nil, err)
			return nil, nil, err
		}
		conns = append(conns, conn)
	}
	return s, conns, nil
}

// redisWork writes what is to be got, and gets it over a connection for each worker.
func redisWork(conns []*redisConn, n int) (Work, error) {
	keys, values := make([]string, n), make([][]byte, n)
	for i := range keys {
		keys[i], values[i] = redisKey(i), redisValue(i)
		if _, err := conns[0].do("SET", keys[i], string(values[i])); err != nil {
			return Work{}, err
		}
	}
	return Work{"Redis, GET", func(_ context.Context, worker int, rnd *rand.Rand) (int, error) {
		i := rnd.IntN(n)
		got, err := conns[worker%len(conns)].do("GET", keys[i])
		if err == nil && !bytes.Equal(got, values[i]) {
			err = fmt.Errorf("wrong answer to GET %s: %q", keys[i], got)
		}
		return 1, err
	}}, nil
}

func redisKey(i int) string {
	digest := sha256.Sum256([]byte(strconv.Itoa(i)))
	return "token:" + hex.EncodeToString(digest[:])
}

// redisValue is about as long as an answer of patd's.
func redisValue(i int) []byte {
	return fmt.Appendf(nil, `{"active":true,"token_id":"%011d","user":"user-%07d","name":"CI deploy %06x",`+
		`"scopes":["billing.edit","billing.read","reports.edit","reports.read"],`+
		`"expire_time":"2027-06-30T00:00:00Z"}`, i, i/10, i)
}

// redisConn is a connection for one caller at a time.
type redisConn struct {
	net.Conn

	r   *bufio.Reader
	out []byte
}

func dialRedis(ctx context.Context, address string) (*redisConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &redisConn{Conn: conn, r: bufio.NewReader(conn)}, nil
}

// do sends a command and returns its answer, in RESP 2. Absence is nil.
func (c *redisConn) do(command ...string) ([]byte, error) {
	c.out = fmt.Appendf(c.out[:0], "*%d\r\n", len(command))
	for _, part := range command {
		c.out = fmt.Appendf(c.out, "$%d\r\n%s\r\n", len(part), part)
	}
	if _, err := c.Write(c.out); err != nil {
		return nil, err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	line = bytes.TrimSuffix(line, []byte("\r\n"))
	if len(line) == 0 {
		return nil, errors.New("read Redis' answer: an empty line")
	}
	switch rest := string(line[1:]); line[0] {
	case '+', ':':
		return []byte(rest), nil
	case '$':
		size, err := strconv.Atoi(rest)
		if err != nil || size < 0 {
			return nil, err
		}
		value := make([]byte, size+2)
		_, err = io.ReadFull(c.r, value)
		return value[:size], err
	default:
		return nil, fmt.Errorf("%s: Redis answers %s", command[0], line)
	}
}
