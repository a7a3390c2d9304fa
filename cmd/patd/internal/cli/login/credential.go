package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"patd/internal/durable"
	"patd/tokens"
	"patd/tokens/secret"
)

// File is where the credential for one server is kept.
type File struct {
	path, addr string
	now        func() time.Time

	mu    sync.Mutex
	known *Credential // as last read or written by Token
}

// Credential is a person's credential for one server.
type Credential struct {
	Server
	Grant
}

// record is the file's form.
type record struct {
	Addr string `json:"addr"`
	Server
	Bearer  string    `json:"token"`
	Refresh string    `json:"refresh_token,omitempty"`
	Expiry  time.Time `json:"expire_time"`
	Subject string    `json:"subject,omitempty"`
}

// ErrNone is the error where nobody is signed in to a server.
var ErrNone = errors.New("nobody is signed in; run `patd login`")

// At returns the file for a server's address. getenv reads the environment: the file is in $XDG_CONFIG_HOME/patd, or
// else ~/.config/patd.
func At(getenv func(string) (string, bool), addr string, now func() time.Time) (*File, error) {
	dir, _ := getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		home, _ := getenv("HOME")
		if !filepath.IsAbs(home) {
			return nil, errors.New("cannot tell where the credential is kept: neither XDG_CONFIG_HOME nor HOME is set")
		}
		dir = filepath.Join(home, ".config")
	}
	addr = strings.ToLower(addr)
	return &File{path: filepath.Join(dir, "patd", "login-"+url.QueryEscape(addr)+".json"), addr: addr, now: now}, nil
}

// Path returns where the file is, or will be.
func (f *File) Path() string { return f.path }

// Read returns the credential; ErrNone: nobody is signed in.
func (f *File) Read() (*Credential, error) {
	text, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("read the credential of patd login: %w", err)
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil || r.Addr != f.addr || r.Bearer == "" {
		return nil, fmt.Errorf("%s does not hold the credential for %s; run `patd login` again", f.path, f.addr)
	}
	return &Credential{Server: r.Server, Grant: Grant{
		Bearer: secret.NewSecret(r.Bearer), Refresh: secret.NewSecret(r.Refresh), Expiry: r.Expiry, Subject: r.Subject,
	}}, nil
}

// Write replaces the credential, whole or not at all. Only the owner can read the file.
func (f *File) Write(ctx context.Context, c Credential) error {
	unlock, err := f.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return f.write(c)
}

func (f *File) write(c Credential) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("keep the credential of patd login: %w", err)
		}
	}()
	text, err := json.MarshalIndent(record{
		Addr:    f.addr,
		Server:  c.Server,
		Bearer:  c.Bearer.Reveal(),
		Refresh: c.Refresh.Reveal(),
		Expiry:  c.Expiry.UTC(),
		Subject: c.Subject,
	}, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(f.path)
	part, err := durable.Part(dir, ".login-", string(text)+"\n", nil)
	if err != nil {
		return err
	}
	if err := os.Rename(part, f.path); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return durable.SyncDir(dir)
}

// Remove deletes the credential and returns it; ErrNone: there was none.
func (f *File) Remove(ctx context.Context) (*Credential, error) {
	unlock, err := f.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	c, err := f.Read()
	if errors.Is(err, ErrNone) {
		return nil, err
	}
	return c, errors.Join(err, os.Remove(f.path))
}

// lock waits until no other process changes the file.
func (f *File) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of credentials: %w", err)
	}
	l, err := os.OpenFile(f.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the credential of patd login: %w", err)
	}
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := syscall.Flock(int(l.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = l.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock the credential of patd login: %w", err), l.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(
				errors.New("another process refreshes the credential of patd login, and does not end"),
				l.Close(),
			)
		case <-again.C:
		}
	}
}

const (
	early    = time.Minute      // a token is refreshed this long before it ends
	patience = 20 * time.Second // for the provider and for other processes
)

// Token returns a bearer token that is good for a while, and refreshes it before that if need be: one process at a time
// does so, and the others take what it got. ErrNone: nobody is signed in.
func (f *File) Token(ctx context.Context) (tokens.Secret, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == nil {
		c, err := f.Read()
		if err != nil {
			return tokens.Secret{}, err
		}
		f.known = c
	}
	if f.fresh(f.known) {
		return f.known.Bearer, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := f.refresh(ctx)
	switch {
	case err == nil:
		f.known = c
	case f.now().Before(f.known.Expiry): // it is good for some seconds more
	default:
		return tokens.Secret{}, err
	}
	return f.known.Bearer, nil
}

func (f *File) fresh(c *Credential) bool { return f.now().Add(early).Before(c.Expiry) }

func (f *File) refresh(ctx context.Context) (*Credential, error) {
	unlock, err := f.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	c, err := f.Read() // another process may have refreshed it meanwhile
	if err != nil || f.fresh(c) {
		return c, err
	}
	if c.Refresh.Reveal() == "" {
		return nil, fmt.Errorf(
			"the sign-in ended at %s, and the provider gave no refresh token; run `patd login`",
			c.Expiry.UTC().Format(time.RFC3339),
		)
	}
	p, err := Discover(ctx, c.Server, f.now)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	g, err := p.Refresh(ctx, c.Grant)
	switch {
	case errors.Is(err, ErrEnded):
		return nil, fmt.Errorf("the sign-in has ended at %s; run `patd login`", c.Issuer)
	case err != nil:
		return nil, err
	}
	next := Credential{Server: c.Server, Grant: g}
	return &next, f.write(next)
}
