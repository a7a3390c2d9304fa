package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// build builds patd into a directory.
func build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "patd")
	//nolint:gosec // our own
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/patd").
		CombinedOutput()

	if err != nil {
		return "", fmt.Errorf("build patd, from the root of the repository: %w\n%s", err, out)
	}
	return binary, nil
}

// patd is a server of its own store, as a process.
type patd struct {
	binary, dir string
	http, grpc  string // addresses
	admin       string // secret of a service that may do everything
	cmd         *exec.Cmd
	log         tail
	client      *http.Client
}

// newPatd starts a server on a new store below a directory.
func newPatd(binary, dir string) (*patd, error) {
	p := &patd{binary: binary, dir: dir, client: &http.Client{Timeout: patience}}
	var err error
	for _, addr := range []*string{&p.http, &p.grpc} {
		if *addr, err = freeAddr(); err != nil {
			return nil, err
		}
	}
	//nolint:gosec,noctx // our own
	out, err := exec.Command(binary, "service", "create", "admin", "--permission", "admin", "--data-dir", p.data()).
		Output()

	if err != nil {
		return nil, fmt.Errorf("create a service: %w", err)
	}
	p.admin = strings.TrimSpace(string(out))
	return p, p.start()
}

func (p *patd) data() string { return filepath.Join(p.dir, "data") }

// freeAddr returns an address on loopback that no process listens on.
func freeAddr() (string, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return lis.Addr().String(), lis.Close()
}

// start starts the server and waits until it is ready.
func (p *patd) start() error {
	//nolint:gosec,noctx // our own
	p.cmd = exec.Command(
		p.binary,
		"serve",
		"--data-dir",
		p.data(),
		"--http-addr",
		p.http,
		"--grpc-addr",
		p.grpc,
		"--drain-delay",
		"0s",
		"--allow-never",
		"--max-tokens-per-user",
		"1000",
	)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start patd: %w", err)
	}
	deadline := time.Now().Add(patience)
	for {
		resp, err := p.client.Get("http://" + p.http + "/readyz") //nolint:noctx // the client has a time limit
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("patd does not become ready; it wrote\n%s", p.log.text()), err)
		}
		wait(20 * time.Millisecond)
	}
}

// end ends the server by a signal, and waits for that.
func (p *patd) end(s syscall.Signal) {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // if it is frozen
	_ = p.cmd.Process.Signal(s)
	_ = p.cmd.Wait() // how it ended does not matter
	p.cmd = nil
}

// copyOf is the name of a copy of the store.
func (p *patd) copyOf() string { return filepath.Join(p.dir, "copy") }

// do changes the state of the server.
func (p *patd) do(what string) error {
	switch what {
	case "stop":
		p.end(syscall.SIGTERM)
	case "kill":
		p.end(syscall.SIGKILL)
	case "start":
		return p.start()
	case "restart":
		p.end(syscall.SIGTERM)
		return p.start()
	case "freeze":
		return p.cmd.Process.Signal(syscall.SIGSTOP)
	case "thaw":
		return p.cmd.Process.Signal(syscall.SIGCONT)
	case "copy": // the store as it is now
		p.end(syscall.SIGTERM)
		if err := os.CopyFS(p.copyOf(), os.DirFS(p.data())); err != nil {
			return err
		}
		return p.start()
	case "restore": // the store as it was copied
		p.end(syscall.SIGTERM)
		if err := errors.Join(os.RemoveAll(p.data()), os.Rename(p.copyOf(), p.data())); err != nil {
			return err
		}
		return p.start()
	default:
		return fmt.Errorf("patd cannot %q", what)
	}
	return nil
}

// call asks the REST API as the operator. out may be nil.
func (p *patd) call(method, path string, in, out any) error {
	text, err := json.Marshal(in)
	if err != nil {
		return err
	}
	var body io.Reader
	if in != nil {
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, "http://"+p.http+path, body) //nolint:noctx // the client has a time limit
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+p.admin)
	resp, err := p.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if text, err = io.ReadAll(resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s\n%s", method, path, resp.Status, text)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// service makes a service that introspects, bound to an audience if there is one, and returns its secret.
func (p *patd) service(name, audience string) (string, error) {
	in := map[string]any{"name": name, "permissions": []string{"introspect"}}
	if audience != "" {
		in["audience"] = audience
	}
	var made struct{ Secret string }
	err := p.call(http.MethodPost, "/v1/services", in, &made)
	return made.Secret, err
}

// token is a personal access token.
type token struct{ user, id, secret string }

// mint makes a token of a user, who then holds its scopes at least.
func (p *patd) mint(user string, fields map[string]any) (token, error) {
	scopes := fields["scopes"]
	path := "/v1/users/" + url.PathEscape(user)
	if err := p.call(http.MethodPatch, path+"/features", map[string]any{"add": scopes}, nil); err != nil {
		return token{}, err
	}
	in := map[string]any{"name": fmt.Sprint("t", time.Now().UnixNano())}
	maps.Copy(in, fields)
	var made struct {
		Token struct {
			ID string `json:"token_id"`
		}
		Secret string
	}
	err := p.call(http.MethodPost, path+"/tokens", in, &made)
	return token{user, made.Token.ID, made.Secret}, err
}

// of returns the path of a token, with a verb.
func (t token) path(verb string) string {
	return "/v1/users/" + url.PathEscape(t.user) + "/tokens/" + t.id + verb
}
