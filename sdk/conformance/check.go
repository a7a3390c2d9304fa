package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"patd/tokens/secret"
)

// question returns the command that checks a token.
func (p *playing) question(s step, name string) order {
	text, literal := strings.CutPrefix(name, "text:")
	switch {
	case literal:
	case name == "unknown":
		text = unknown()
	case name == "service":
		text = p.service
	default:
		text = p.tokens[name].secret
	}
	c := order{"do": "check", "token": text}
	for name, value := range map[string]string{"audience": s.Audience, "ip": s.IP} {
		if value != "" {
			c[name] = value
		}
	}
	if len(s.Scopes) > 0 {
		c["scopes"] = s.Scopes
	}
	return c
}

// unknown returns a text with the form of a token that does not exist.
func unknown() string {
	id, err := secret.NewID(time.Now(), rand.Reader)
	if err != nil {
		panic(err) // the clock of this machine is before 2020, or after 2159
	}
	made, err := secret.Mint(secret.PrefixPersonal, id, rand.Reader)
	if err != nil {
		panic(err) // this machine has no randomness
	}
	return made.Reveal()
}

// remember checks a token until its answer is in memory.
func (p *playing) remember(s step) error {
	s.Check, s.Want = s.Remember, "ALLOW"
	return until(patience, func() error {
		before := p.proxy.asks()
		err := p.checkOnce(s)
		if err == nil && p.proxy.asks() > before {
			err = fmt.Errorf("check %s: patd is asked again and again", s.Check)
		}
		return err
	})
}

// check checks a token, as often as a step says, and counts what patd is asked meanwhile.
func (p *playing) check(s step) error {
	before := p.proxy.asks()
	err := p.checks(s)
	asks := p.proxy.asks() - before
	switch {
	case err != nil:
		return err
	case s.Asks != nil && asks != *s.Asks:
		return fmt.Errorf("check %s: patd was asked about %d tokens, want %d", s.Check, asks, *s.Asks)
	case s.MostAsks != nil && asks > *s.MostAsks:
		return fmt.Errorf("check %s: patd was asked about %d tokens, want %d at most", s.Check, asks, *s.MostAsks)
	}
	return nil
}

func (p *playing) checks(s step) error {
	switch {
	case s.WithinMS > 0:
		return p.checkUntil(s)
	case s.ForMS > 0:
		for end := time.Now().Add(time.Duration(s.ForMS) * time.Millisecond); time.Now().Before(end); wait(10 * time.Millisecond) {
			if err := p.checkOnce(s); err != nil {
				return err
			}
		}
		return nil
	case s.Parallel > 0:
		var all []<-chan result
		for i := range s.Parallel {
			to, err := p.driver.begin(p.question(p.varied(s, i), s.Check))
			if err != nil {
				return err
			}
			all = append(all, to)
		}
		for _, to := range all {
			r, err := p.driver.wait(to)
			if err == nil {
				err = p.wanted(s, r)
			}
			if err != nil {
				return err
			}
		}
		return nil
	default:
		for i := range max(1, s.Times) {
			if err := p.checkOnce(p.varied(s, i)); err != nil {
				return err
			}
		}
		return nil
	}
}

// varied is a step from another address each time, if it says so.
func (p *playing) varied(s step, i int) step {
	if s.DistinctIPs {
		s.IP = fmt.Sprintf("10.0.%d.%d", i/250, i%250)
	}
	return s
}

func (p *playing) checkOnce(s step) error {
	before := p.proxy.asks()
	r, err := p.driver.do(p.question(s, s.Check))
	if err != nil {
		return err
	}
	if asked := p.proxy.asks() > before; r.Memory != nil && *r.Memory && asked && s.ForMS == 0 {
		return fmt.Errorf("check %s: it says from_memory, and patd was asked", s.Check)
	}
	return p.wanted(s, r)
}

// checkUntil repeats a check until it gives what is wanted.
func (p *playing) checkUntil(s step) error {
	or := s.Or
	if or == nil {
		or = []string{"ALLOW"}
	}
	deadline := time.Now().Add(time.Duration(s.WithinMS*p.slack) * time.Millisecond)
	for {
		r, err := p.driver.do(p.question(s, s.Check))
		if err != nil {
			return err
		}
		wrong := p.wanted(s, r)
		if wrong == nil {
			return nil
		}
		if time.Now().After(deadline) || !slices.ContainsFunc(or, func(o string) bool { return outcome(o, r) }) {
			return wrong
		}
		wait(5 * time.Millisecond)
	}
}

// outcome reports whether an answer is what a text names.
func outcome(want string, r result) bool {
	switch class, isError := strings.CutPrefix(want, "error:"); {
	case isError:
		return r.Error == class && r.Decision == ""
	case want == "error":
		return r.Error != "" && r.Decision == ""
	default:
		return r.Decision == want && r.Error == ""
	}
}

// reasons are the stable reasons of the decisions that do not have their own name as their reason.
var reasons = map[string]string{
	"ALLOW": "", "INSUFFICIENT_SCOPE": "SCOPE_INSUFFICIENT", "NOT_FOUND": "CREDENTIAL_INVALID",
	"EXPIRED": "TOKEN_EXPIRED", "REVOKED": "TOKEN_REVOKED", "SUPERSEDED": "TOKEN_SUPERSEDED",
}

// wanted compares an answer with what a step wants.
func (p *playing) wanted(s step, r result) error {
	name := s.Check + s.End
	reason, named := reasons[r.Decision]
	if !named {
		reason = r.Decision
	}
	switch active := r.Decision == "ALLOW" || r.Decision == "INSUFFICIENT_SCOPE"; {
	case !outcome(s.Want, r):
		return fmt.Errorf("check %s: got %s, want %s", name, r.raw, s.Want)
	case r.Error == "" && r.Reason != reason:
		return fmt.Errorf("check %s: the reason of %s is %q, want %q", name, r.Decision, r.Reason, reason)
	case name == "unknown" && r.Decision == "NOT_FOUND":
		return nil
	case active && p.tokens[name].id == "":
		return fmt.Errorf("check %s: a token that does not exist is active: %s", name, r.raw)
	case active && (r.TokenID != p.tokens[name].id || r.User != p.tokens[name].user):
		return fmt.Errorf(
			"check %s: it is token %s of %s, want %s of %s",
			name,
			r.TokenID,
			r.User,
			p.tokens[name].id,
			p.tokens[name].user,
		)
	case !active && (r.TokenID != "" || r.User != "" || len(r.Scopes) > 0):
		return fmt.Errorf("check %s: a token that is not active is described: %s", name, r.raw)
	case s.Missing != nil && !slices.Equal(r.Missing, s.Missing):
		return fmt.Errorf("check %s: missing are %q, want %q", name, r.Missing, s.Missing)
	}
	return nil
}

// decode reads a JSON response.
func decode(resp *http.Response, into any) error {
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s\n%s", resp.Status, text)
	}
	return json.Unmarshal(text, into)
}
