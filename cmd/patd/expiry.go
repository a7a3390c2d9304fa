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

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/storeadmin"
	"patd/store"
	"patd/tokens"
)

// expiries watches the expiry of a server's service tokens and TLS certificate. The log warns of each once a day;
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
	key     time.Time // when the current hash key was first used
	size    int64     // of the store, in bytes
}

// watch checks at once and every minute, until ctx ends.
func (x *expiries) watch(ctx context.Context) {
	tick := time.NewTicker(storeadmin.ExpiryInterval)
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

// look reads the expiry times anew. If the services cannot be read now, the previous ones are kept.
func (x *expiries) look(ctx context.Context) {
	now := x.now()
	end := certificateEnd(x.certificate)
	x.mu.Lock()
	x.cert = end
	x.mu.Unlock()
	if !end.IsZero() && end.Sub(now) <= storeadmin.ExpiryNotice {
		x.warn(0, end, now, "the TLS certificate")
	}
	x.measure(ctx)
	found, err := storeadmin.ReadEndings(ctx, x.store, now)
	if err != nil {
		if ctx.Err() == nil {
			x.log.Debug("could not look which service tokens expire", "cause", cli.Redact(err.Error()))
		}
		return
	}
	x.mu.Lock()
	x.service, x.soon = found.Next, len(found.Soon)
	x.mu.Unlock()
	warned := map[tokens.ID]time.Time{0: x.warned[0]} // drops what needs no warning any more
	for _, v := range slices.Concat(found.Ended, found.Soon) {
		warned[v.ID] = x.warned[v.ID]
	}
	x.warned = warned
	for _, v := range slices.Concat(found.Ended, found.Soon) {
		x.warn(
			v.ID,
			v.ExpireTime,
			now,
			"a service token",
			slog.String("service", v.Name),
			slog.String("token_id", v.ID.String()),
		)
	}
}

// measure reads the age of the hash key and the size of the store. What cannot be read now stays as it was.
func (x *expiries) measure(ctx context.Context) {
	var key time.Time
	err := x.store.View(ctx, func(tx tokens.ReadTx) error {
		known, err := tx.Keys()
		for _, k := range known {
			if k.RetireTime.IsZero() && k.CreateTime.After(key) {
				key = k.CreateTime
			}
		}
		return err
	})
	size, serr := x.store.Size(ctx)
	x.mu.Lock()
	defer x.mu.Unlock()
	if err == nil {
		x.key = key
	}
	if serr == nil {
		x.size = size
	}
}

// measured returns the age of the hash key in seconds and the size of the store in bytes; 0: not read yet.
func (x *expiries) measured() (keyAge, size float64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.key.IsZero() {
		keyAge = max(x.now().Sub(x.key).Seconds(), 0)
	}
	return keyAge, float64(x.size)
}

// warn logs that something expires soon or has expired: at most once a day, and again at expiry.
func (x *expiries) warn(id tokens.ID, end, now time.Time, what string, about ...slog.Attr) {
	over := !now.Before(end)
	if last := x.warned[id]; now.Sub(last) < storeadmin.WarnAgain && !(over && last.Before(end)) {
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

// certificateEnd returns when the first certificate of a server's chain expires. A changed file is read anew, as at a
// handshake. Zero: there is none.
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

// figures returns the seconds until the first service token and until the certificate expire, +Inf where none does, and
// how many service tokens expire soon.
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
