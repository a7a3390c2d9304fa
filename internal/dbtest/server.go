package dbtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/internal/proctest"
)

// startWithin is how long a server may take to accept connections; machines that run tests can be slow.
const startWithin = 60 * time.Second

// Server is a database server of one test.
type Server struct {
	// Host, Port, User, Password and Database are what a client connects with, over TCP. The user may do everything.
	Host, Port, User, Password, Database string

	dir     string
	account account
	command func(s *Server) *exec.Cmd
	open    func(s *Server) (*sql.DB, error)
	process *process
	admin   *sql.DB
}

// Admin is a pool of connections to the server for the test's own statements. It is closed with the server.
func (s *Server) Admin() *sql.DB { return s.admin }

// Addr is host:port.
func (s *Server) Addr() string { return net.JoinHostPort(s.Host, s.Port) }

// Kill ends the server at once, as a power cut would, and waits until nothing of it is left.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	if err := s.stop(); err != nil {
		tb.Fatalf("kill the database: %v", err)
	}
}

// Freeze keeps the server from running, without ending it: connections stay open, and there is no response.
func (s *Server) Freeze(tb testing.TB) {
	tb.Helper()
	if err := s.process.freeze(); err != nil {
		tb.Fatalf("freeze the database: %v", err)
	}
}

// Thaw lets a frozen server run again.
func (s *Server) Thaw(tb testing.TB) {
	tb.Helper()
	if err := s.process.thaw(); err != nil {
		tb.Fatalf("thaw the database: %v", err)
	}
}

// Start starts a server that was killed, on the same port and data, and waits until it answers.
func (s *Server) Start(tb testing.TB) {
	tb.Helper()
	if err := s.start(); err != nil {
		tb.Fatalf("start the database: %v\n%s", err, s.log())
	}
}

func (s *Server) stop() error {
	if s.process == nil {
		return nil
	}
	p := s.process
	s.process = nil
	return p.kill()
}

// start runs the server and asks it until it answers; one that ends before, because what is left of a killed one holds
// its files for a moment, is started again.
func (s *Server) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	var last error
	for ctx.Err() == nil {
		cmd := s.command(s)
		cmd.Dir = s.dir
		p, err := startProcess(cmd, filepath.Join(s.dir, "log"), s.account)
		if err != nil {
			return err
		}
		if last = s.answers(ctx, p); last == nil {
			s.process = p
			return nil
		}
		if err := p.kill(); err != nil {
			return err
		}
	}
	return fmt.Errorf("it does not answer: %w", last)
}

// answers waits until the server answers or has ended.
func (s *Server) answers(ctx context.Context, p *process) error {
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := s.admin.PingContext(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return errors.New("the server ended")
		case <-ctx.Done():
			return err
		case <-poll.C:
		}
	}
}

// log is the end of what the server has written.
func (s *Server) log() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4096):])
}

// newServer makes a server with a directory, a port and a password of its own.
func newServer(tb testing.TB, runAs string) *Server {
	tb.Helper()
	return newServerIn(tb, "", runAs)
}

// newServerIn is newServer with the directory below another; empty: the usual one for temporary files. No database is
// made with -short.
func newServerIn(tb testing.TB, in, runAs string) *Server {
	tb.Helper()
	longtest.Slow(tb)
	a, err := unprivileged(runAs)
	if err != nil {
		proctest.Missing(tb, "an account to run a database as ("+err.Error()+")")
	}
	// Not tb.TempDir: only its owner can enter that, and a database refuses to run as root.
	dir, err := os.MkdirTemp(in, "dbtest")
	if err != nil {
		tb.Fatalf("make a directory for the database: %v", err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := a.give(dir); err != nil {
		tb.Fatalf("make a directory for the database: %v", err)
	}
	port, err := freePort()
	if err != nil {
		tb.Fatalf("find a port for the database: %v", err)
	}
	return &Server{Host: "127.0.0.1", Port: port, Password: rand.Text(), dir: dir, account: a}
}

// run starts the server for the first time and sees to its end.
func (s *Server) run(tb testing.TB) {
	tb.Helper()
	var err error
	if s.admin, err = s.open(s); err != nil {
		tb.Fatalf("open the database: %v", err)
	}
	tb.Cleanup(func() {
		_ = s.admin.Close()
		if err := s.stop(); err != nil {
			tb.Errorf("end the database: %v", err)
		}
	})
	s.Start(tb)
}

// once runs a command that prepares the server's files.
func (s *Server) once(tb testing.TB, cmd *exec.Cmd) {
	tb.Helper()
	cmd.Dir = s.dir
	s.account.use(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("prepare the database: %v\n%s", err, out)
	}
}

func freePort() (string, error) {
	var listen net.ListenConfig
	l, err := listen.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	at, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return "", errors.New("the listener has no TCP address")
	}
	return strconv.Itoa(at.Port), nil
}
