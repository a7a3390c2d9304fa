package client_test

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"patd/client"
)

func TestUsesOutOfMemoryAreReported(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secret, id := r.mint()
		refused, other := r.mint()
		synctest.Wait()
		check := func(token, ip string, scopes ...string) {
			if _, err := r.verifier.Verify(
				r.Context(),
				token,
				client.Call{Scopes: scopes, ClientIP: netip.MustParseAddr(ip)},
			); err != nil {
				r.Error(err)
			}
		}
		check(secret, "192.0.2.1")
		check(refused, "192.0.2.1", "nothing")
		pass(time.Second)
		check(refused, "192.0.2.1", "nothing")
		check(secret, "192.0.2.2")
		check(secret, "192.0.2.2")
		pass(time.Second)
		check(secret, "192.0.2.1")
		last := time.Now()
		pass(9 * time.Second)
		got := r.server.Uses()
		if use := got[id]; use == nil || !use.GetTime().AsTime().Equal(last) || use.GetClientIp() != "192.0.2.1" {
			r.Errorf("reported as last used: %v, want %s from 192.0.2.1", use, last.UTC())
		}
		if use := got[other]; use != nil {
			r.Errorf("refused attempts are reported as use: %v", use)
		}
		pass(time.Minute)
		if got := r.server.Calls().Reports; got != 1 {
			r.Errorf("%d reports, want 1: nothing was used since", got)
		}
		check(secret, "192.0.2.1")
		check(secret, "192.0.2.1")
		last = time.Now()
		if err := r.verifier.Close(); err != nil {
			r.Fatal(err)
		}
		if use := r.server.Uses()[id]; !use.GetTime().AsTime().Equal(last) {
			r.Errorf("close leaves a use unreported: %v, want %s", use, last.UTC())
		}
	})
}

func TestReportIsTriedAgain(t *testing.T) {
	bubble(t, client.Config{}, func(r *rig) {
		secrets := map[string]string{}
		for range 1500 { // more than one report holds
			secret, id := r.mint()
			secrets[id] = secret
		}
		synctest.Wait()
		for _, secret := range secrets {
			r.want("asked", client.Allow, secret)
			r.want("remembered", client.Allow, secret)
		}
		r.server.Fail(errors.New("out"))
		pass(15 * time.Second)
		r.server.Fail(nil)
		pass(10 * time.Second)
		if got := len(r.server.Uses()); got != len(secrets) {
			r.Errorf("%d tokens are reported, want %d", got, len(secrets))
		}
		if got := r.verifier.Stats().DroppedUses; got != 0 {
			r.Errorf("%d uses dropped", got)
		}
	})
}

// Uses are reported before there is no room for more, however many tokens are used within one interval.
func TestManyUsesAreReportedEarly(t *testing.T) {
	bubble(t, client.Config{MaxEntries: 64, ReportEvery: time.Hour}, func(r *rig) {
		for range 1000 {
			secret, _ := r.mint()
			synctest.Wait()
			r.want("asked", client.Allow, secret)
			r.want("remembered", client.Allow, secret)
		}
		synctest.Wait()
		s := r.verifier.Stats()
		if got := len(r.server.Uses()); s.DroppedUses != 0 || s.Entries > 64 || got < 1000-32 {
			r.Errorf("%d of 1000 uses are reported; stats: %+v", got, s)
		}
	})
}

func TestOneTokenIsOneUse(t *testing.T) {
	bubble(t, client.Config{MaxEntries: 64}, func(r *rig) {
		secret, _ := r.mint()
		synctest.Wait()
		for range 1000 {
			r.want("it", client.Allow, secret)
		}
		if s := r.verifier.Stats(); s.DroppedUses != 0 {
			r.Errorf("stats: %+v", s)
		}
	})
}

func TestNothingIsReportedWhenToldSo(t *testing.T) {
	bubble(t, client.Config{ReportEvery: -1}, func(r *rig) {
		secret, _ := r.mint()
		synctest.Wait()
		r.want("asked", client.Allow, secret)
		r.want("remembered", client.Allow, secret)
		pass(time.Hour)
		if err := r.verifier.Close(); err != nil || r.server.Calls().Reports != 0 {
			r.Errorf("close: %v, %d reports", err, r.server.Calls().Reports)
		}
	})
}
