package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"patd/store"
	"patd/tokens"
)

const (
	// expiryNotice is how long before the end of a service token or of the TLS certificate an operator is warned.
	expiryNotice = 14 * 24 * time.Hour
	// expiryInterval is how often a server looks for such ends.
	expiryInterval = time.Minute
	// warnAgain is how often one end is logged.
	warnAgain = 24 * time.Hour
)

// endings are the service tokens that end, of those that are not revoked.
type endings struct {
	next time.Time // when the first of the live ones ends; zero: there is none
	soon []tokens.ServiceAccount
	// ended are those that ended within the last expiryNotice, and whose name no later service has.
	ended []tokens.ServiceAccount
}

// readEndings reads the services of a store, whatever their number.
func readEndings(ctx context.Context, st *store.Store, now time.Time) (e endings, err error) {
	const page = 1000
	err = st.View(ctx, func(tx tokens.ReadTx) error {
		e = endings{}
		later := map[string]bool{} // names of those that were read, which are newer
		for before := tokens.ID(0); ; {
			found, err := tx.Services(before, page)
			if err != nil {
				return err
			}
			for _, v := range found {
				e.add(v, later[v.Name], now)
				later[v.Name] = true
				before = v.ID
			}
			if len(found) < page {
				return nil
			}
		}
	})
	first := func(a, b tokens.ServiceAccount) int { return a.ExpireTime.Compare(b.ExpireTime) }
	slices.SortFunc(e.soon, first)
	slices.SortFunc(e.ended, first)
	return e, err
}

func (e *endings) add(v tokens.ServiceAccount, replaced bool, now time.Time) {
	switch left := v.ExpireTime.Sub(now); {
	case v.Revocation != nil || v.ExpireTime.IsZero():
		return
	case v.Status(now) != tokens.StateActive:
		if !replaced && left > -expiryNotice {
			e.ended = append(e.ended, v)
		}
		return
	case left <= expiryNotice:
		e.soon = append(e.soon, v)
	}
	if e.next.IsZero() || v.ExpireTime.Before(e.next) {
		e.next = v.ExpireTime
	}
}

// expiries watches when service tokens and the TLS certificate of a server end. The log warns of each end once a day,
// /metrics has the first one.
type expiries struct {
	store       *store.Store
	certificate *tls.Config // nil: plain text
	now         func() time.Time
	log         *slog.Logger

	warned map[tokens.ID]time.Time // by watch alone; the certificate is 0

	mu      sync.Mutex
	service time.Time // zero: none ends
	soon    int
	cert    time.Time
}

// watch looks at once and every minute, until ctx ends.
func (x *expiries) watch(ctx context.Context) {
	tick := time.NewTicker(expiryInterval)
	defer tick.Stop()
	for {
		x.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look reads the ends anew. Services that cannot be read now are as they were.
func (x *expiries) look(ctx context.Context) {
	now := x.now()
	end := certificateEnd(x.certificate)
	x.mu.Lock()
	x.cert = end
	x.mu.Unlock()
	if !end.IsZero() && end.Sub(now) <= expiryNotice {
		x.warn(0, end, now, "the TLS certificate")
	}
	found, err := readEndings(ctx, x.store, now)
	if err != nil {
		if ctx.Err() == nil {
			x.log.Debug("could not look which service tokens expire", "cause", redact(err.Error()))
		}
		return
	}
	x.mu.Lock()
	x.service, x.soon = found.next, len(found.soon)
	x.mu.Unlock()
	warned := map[tokens.ID]time.Time{0: x.warned[0]} // what needs no warning any more is forgotten
	for _, v := range slices.Concat(found.ended, found.soon) {
		warned[v.ID] = x.warned[v.ID]
	}
	x.warned = warned
	for _, v := range slices.Concat(found.ended, found.soon) {
		x.warn(v.ID, v.ExpireTime, now, "a service token", slog.String("service", v.Name), slog.String("token_id", v.ID.String()))
	}
}

// warn logs that something ends, or has ended: at most once a day, and when its end has come.
func (x *expiries) warn(id tokens.ID, end, now time.Time, what string, about ...slog.Attr) {
	over := !now.Before(end)
	if last := x.warned[id]; now.Sub(last) < warnAgain && !(over && last.Before(end)) {
		return
	}
	if x.warned == nil {
		x.warned = map[tokens.ID]time.Time{}
	}
	x.warned[id] = now
	text := what + " expires soon"
	if over {
		text = what + " has expired"
	}
	x.log.LogAttrs(context.Background(), slog.LevelWarn, text, append(about, slog.Time("expires", end.UTC()))...)
}

// certificateEnd is when the first certificate of the chain that a server presents ends. A file that has changed is read
// anew, as when somebody connects. Zero: there is none.
func certificateEnd(config *tls.Config) (end time.Time) {
	if config == nil {
		return end
	}
	pair, err := config.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		return end
	}
	for _, der := range pair.Certificate {
		if c, err := x509.ParseCertificate(der); err == nil && (end.IsZero() || c.NotAfter.Before(end)) {
			end = c.NotAfter
		}
	}
	return end
}

// figures are the seconds until the first service token ends and until the certificate ends, +Inf where none does, and how many
// service tokens end soon.
func (x *expiries) figures() (service, cert float64, soon int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.now()
	until := func(end time.Time) float64 {
		if end.IsZero() {
			return math.Inf(1)
		}
		return end.Sub(now).Seconds()
	}
	return until(x.service), until(x.cert), x.soon
}

// warnings are what `patd check` says of the services' ends, in words.
func (e endings) warnings(now time.Time) []string {
	list := []string{}
	for _, v := range slices.Concat(e.ended, e.soon) {
		verb := "expires"
		if !now.Before(v.ExpireTime) {
			verb = "expired"
		}
		list = append(list, "the token "+v.ID.String()+" of service "+v.Name+" "+verb+" at "+v.ExpireTime.UTC().Format(time.RFC3339)+
			"; give its program the token of another service")
	}
	return list
}
