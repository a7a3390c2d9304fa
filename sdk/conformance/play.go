package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// stage is what scenarios are played on: a patd, a proxy in front of it, and a driver. It plays one at a time.
type stage struct {
	patd   *patd
	proxy  *proxy
	driver *driver
	played int
	slack  int // see options
}

func newStage(binary, dir string, command []string) (s *stage, err error) {
	s = &stage{}
	defer func() {
		if err != nil {
			_ = s.close() // the first error says more
		}
	}()
	if s.patd, err = newPatd(binary, dir); err != nil {
		return s, err
	}
	if s.proxy, err = newProxy(s.patd.http, s.patd.grpc); err != nil {
		return s, err
	}
	s.driver, err = startDriver(command)
	return s, err
}

// close ends all of it. An error is about the driver.
func (s *stage) close() (err error) {
	if s.proxy != nil {
		s.proxy.reset()
	}
	if s.driver != nil {
		err = s.driver.stop()
	}
	if s.proxy != nil {
		s.proxy.close()
	}
	if s.patd != nil {
		s.patd.end(9)
	}
	return err
}

// cannot returns why a driver cannot play a scenario; empty: it can.
func (s *stage) cannot(of scenario) string {
	if of.Speaks != "" && of.Speaks != s.driver.hello.Speaks {
		return "for libraries that speak " + of.Speaks
	}
	for _, need := range of.Needs {
		if !slices.Contains(s.driver.hello.Can, need) {
			return "the driver cannot: " + need
		}
	}
	return ""
}

// play plays a scenario. It leaves a patd that serves, and a proxy without faults.
func (s *stage) play(of scenario) (err error) {
	s.played++
	p := &playing{
		stage:  s,
		of:     of,
		tokens: map[string]token{},
		begun:  map[string][]<-chan result{},
		name:   fmt.Sprintf("s%d", s.played),
		acked:  s.proxy.acknowledgements(),
	}
	defer func() {
		s.proxy.reset()
		_, closing := s.driver.do(order{"do": "close"})
		if err == nil {
			err = closing
		}
		if s.patd.cmd == nil {
			err = errors.Join(err, s.patd.start())
		} else {
			_ = s.patd.do("thaw") // it may be running
		}
	}()
	if err := p.configure(of.Configure); err != nil {
		return fmt.Errorf("configure: %w", err)
	}
	if !of.NoWait {
		if err := p.watching(true); err != nil {
			return err
		}
	}
	for i, step := range of.Steps {
		if err := p.step(step); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

// playing is a scenario that is played.
type playing struct {
	*stage
	of      scenario
	name    string // of its service, and in the ids of its users
	service string // the secret of its service
	tokens  map[string]token
	begun   map[string][]<-chan result
	asked   int // tokens that patd was asked about before the latest begin
	acked   int // acknowledgements before the scenario
}

func (p *playing) configure(more map[string]any) error {
	audience, _ := more["audience_of_service"].(string)
	if p.service == "" {
		var err error
		if p.service, err = p.patd.service(p.name, audience); err != nil {
			return err
		}
	}
	c := order{"do": "configure", "http": "http://" + p.proxy.http, "grpc": p.proxy.grpc, "token": p.service,
		"timeout_ms": 2000 * p.slack}
	for name, value := range more {
		if name != "audience_of_service" {
			c[name] = value
		}
	}
	r, err := p.driver.do(c)
	if err == nil && !r.OK {
		err = fmt.Errorf("%s %s", r.Error, r.Text)
	}
	return err
}

// user returns the id of a user of the scenario.
func (p *playing) user(name string) string {
	if name == "" {
		name = "alice"
	}
	return p.name + "-" + name
}

func (p *playing) step(s step) error {
	done := []func() (bool, error){
		func() (bool, error) { return p.prepare(s) },
		func() (bool, error) { return p.disturb(s) },
		func() (bool, error) { return p.look(s) },
	}
	for _, f := range done {
		if known, err := f(); known || err != nil {
			return err
		}
	}
	return errors.New("it says nothing to do")
}

// prepare changes something in patd.
func (p *playing) prepare(s step) (known bool, err error) {
	user := func(name string) string { return "/v1/users/" + url.PathEscape(p.user(name)) }
	post := func(path string, in any) error { return p.patd.call(http.MethodPost, path, in, nil) }
	if in := map[string]any{}; s.Mint != "" {
		in["scopes"] = s.Scopes
		for name, value := range map[string][]string{"allowed_cidrs": s.Networks, "audiences": s.Audiences} {
			if len(value) > 0 {
				in[name] = value
			}
		}
		if s.TTL != "" {
			in["ttl"] = s.TTL
		}
		p.tokens[s.Mint], err = p.patd.mint(p.user(s.User), in)
		return true, err
	}
	switch {
	case s.Exchange != "":
		p.tokens[s.Exchange], err = p.exchange(p.tokens[s.Of])
	case s.Rotate != "":
		var made struct{ Secret string }
		t := p.tokens[s.Rotate]
		in := map[string]any{}
		if s.Grace != "" {
			in["grace"] = s.Grace
		}
		err = p.patd.call(http.MethodPost, t.path(":rotate"), in, &made)
		t.secret = made.Secret
		p.tokens[s.To] = t
	case s.Revoke != "":
		err = p.takeAway(s, p.tokens[s.Revoke].path(":revoke"))
	case s.Narrow != "":
		in := map[string]any{"token": map[string]any{"scopes": s.Scopes}, "update_mask": "scopes"}
		err = p.patd.call(http.MethodPatch, p.tokens[s.Narrow].path(""), in, nil)
	case s.Features != nil:
		err = p.patd.call(http.MethodPut, user(s.User)+"/features", map[string]any{"features": *s.Features}, nil)
	case s.Suspend != "":
		err = p.takeAway(s, user(s.Suspend)+":suspend")
	case s.Resume != "":
		err = post(user(s.Resume)+":resume", map[string]any{})
	case s.Delete != "":
		err = p.patd.call(http.MethodDelete, user(s.Delete), nil, nil)
	case s.Service == "revoke":
		err = post("/v1/services/"+p.name+":revoke", map[string]any{})
	case s.Changes > 0:
		err = p.changes(s.Changes)
	default:
		return false, nil
	}
	return true, err
}

func (p *playing) exchange(of token) (token, error) {
	//nolint:noctx // the client has a time limit
	resp, err := p.patd.client.PostForm(
		"http://"+p.patd.http+"/oauth2/token",
		url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {of.secret},
			"subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"},
		},
	)
	if err != nil {
		return of, err
	}
	defer resp.Body.Close()
	var granted struct {
		AccessToken string `json:"access_token"`
	}
	if err := decode(resp, &granted); err != nil {
		return of, err
	}
	of.secret = granted.AccessToken
	return of, nil
}

// disturb changes what lies between the driver and patd, or the driver itself.
func (p *playing) disturb(s step) (known bool, err error) {
	switch {
	case s.Patd != "":
		err = p.patd.do(s.Patd)
	case s.Proxy != nil:
		p.proxy.set(s.Proxy)
	case s.WaitMS > 0:
		wait(time.Duration(s.WaitMS) * time.Millisecond)
	case s.Clock != nil:
		_, err = p.driver.do(order{"do": "clock", "wall_ms": *s.Clock})
	case s.Configured != nil:
		if _, err = p.driver.do(order{"do": "close"}); err == nil {
			err = p.configure(s.Configured)
		}
	default:
		return false, nil
	}
	return true, err
}

// look asks the driver, and compares.
func (p *playing) look(s step) (known bool, err error) {
	switch {
	case s.Watching != nil:
		err = p.watching(*s.Watching)
	case s.Entries != nil:
		var r result
		if r, err = p.driver.do(order{"do": "status"}); err == nil && r.Entries > *s.Entries {
			err = fmt.Errorf("%d answers are in memory, want %d at most", r.Entries, *s.Entries)
		}
	case s.Remember != "":
		err = p.remember(s)
	case s.Check != "":
		err = p.check(s)
	case s.Begin != "":
		p.asked = p.proxy.asks()
		for range max(1, s.Parallel) {
			to, err := p.driver.begin(p.question(s, s.Begin))
			if err != nil {
				return true, err
			}
			p.begun[s.Begin] = append(p.begun[s.Begin], to)
		}
	case s.End != "":
		for _, to := range p.begun[s.End] {
			r, err := p.driver.wait(to)
			if err == nil {
				err = p.wanted(s, r)
			}
			if err != nil {
				return true, err
			}
		}
		delete(p.begun, s.End)
		if asks := p.proxy.asks() - p.asked; s.MostAsks != nil && asks > *s.MostAsks {
			err = fmt.Errorf("check %s: patd was asked about %d tokens, want %d at most", s.End, asks, *s.MostAsks)
		}
	case s.Close:
		var r result
		if r, err = p.driver.do(
			order{"do": "close"},
		); err == nil &&
			(r.Error != "") != strings.HasPrefix(s.Want, "error") {
			err = fmt.Errorf("close: %s", r.raw)
		}
	case s.Used != "":
		err = p.used(s)
	case s.Acked != nil:
		err = p.acknowledged(s)
	case s.Held:
		err = until(patience, func() error {
			if !p.proxy.holds() {
				return errors.New("no event has said that more follow")
			}
			return nil
		})
	default:
		return false, nil
	}
	return true, err
}

// watching waits until the driver's memory is open, or is not.
func (p *playing) watching(want bool) error {
	return until(patience, func() error {
		r, err := p.driver.do(order{"do": "status"})
		if err == nil && r.Watching != want {
			err = fmt.Errorf("watching is %v, want %v", r.Watching, want)
		}
		return err
	})
}

// scopeUse is what patd knows about the uses of one scope.
type scopeUse struct {
	Scope string
	Day   string `json:"last_used_day"`
}

// used waits until patd knows a use of a token. It restarts patd, which writes uses in the background otherwise.
func (p *playing) used(s step) error {
	return until(patience, func() error {
		if err := p.patd.do("restart"); err != nil {
			return err
		}
		var got struct {
			Token struct {
				IP     string     `json:"last_used_ip"`
				Scopes []scopeUse `json:"scope_uses"`
			}
		}
		if err := p.patd.call(http.MethodGet, p.tokens[s.Used].path(""), nil, &got); err != nil {
			return err
		}
		if got.Token.IP != s.IP {
			return fmt.Errorf("the last use was from %q, want %q", got.Token.IP, s.IP)
		}
		for _, want := range s.Scopes {
			if !slices.ContainsFunc(got.Token.Scopes, func(u scopeUse) bool { return u.Scope == want && u.Day != "" }) {
				return fmt.Errorf("scope %s was not used", want)
			}
		}
		return nil
	})
}

// until repeats f until it returns nil, for a time.
func until(most time.Duration, f func() error) error {
	deadline := time.Now().Add(most)
	for {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		wait(10 * time.Millisecond)
	}
}

// wait waits. The suite's subject is what happens in time.
func wait(d time.Duration) { <-time.After(d) }
