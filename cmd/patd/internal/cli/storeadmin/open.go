package storeadmin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/store"
	"patd/store/cache"
	"patd/tokens"
)

// Opened is an open store with the keys that belong to it.
type Opened struct {
	*store.Store
	Place    config.Place
	Fresh    bool // made just now
	Stamp    config.Stamp
	Keys     *tokens.Keys
	prefixes tokens.Prefixes
}

// Open opens a store, or makes a new one with its key, and checks that the two belong together. Only migrate makes a
// store in PostgreSQL.
func Open(ctx context.Context, c *cli.Command, s *config.Settings, log *slog.Logger) (*Opened, error) {
	p, err := config.PlaceOf(c, s)
	if err != nil {
		return nil, err
	}
	o := &Opened{Place: p, Stamp: p.Keys.Stamp()}
	if p.Remote() {
		o.Keys, err = presentKeys(p)
	} else {
		o.Keys, o.Fresh, err = p.KeysOfFile(s)
	}
	if err != nil {
		return nil, err
	}
	if o.Store, err = store.Open(ctx, p.URL(), storeOptions(c, p, s, log)); err != nil {
		return nil, err
	}
	if err := o.belong(ctx, s.PersonalPrefix, c.Now); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	o.recordSeal(ctx, log)
	p.Keys.Sweep(c.Now())
	if p.Keys != "" && p.Keys.ReadableByOthers() {
		log.Warn("the hash key can be read by others than its owner; chmod 600 it", "file", string(p.Keys))
	}
	for _, dir := range p.WritableByOthers() {
		log.Warn(
			"others than its owner can write to this directory, and so replace the store or its key; chmod 700 it",
			"directory",
			dir,
		)
	}
	return o, nil
}

func storeOptions(c *cli.Command, p config.Place, s *config.Settings, log *slog.Logger) store.Options {
	o := store.Options{Logger: log, Now: c.Now, Reserve: int64(s.DiskReserve), Version: c.Version}
	if p.Remote() {
		o.Password, o.Connections, o.StatementTimeout = s.Password(), int(
			s.DatabaseConnections,
		), time.Duration(
			s.DatabaseTimeout,
		)
	}
	return o
}

// belong checks that keys and store belong together. Keys rotated since they were read look like the wrong ones.
func (o *Opened) belong(ctx context.Context, prefix string, now func() time.Time) error {
	err := o.bind(ctx, prefix, now())
	for err != nil && o.Stamp != o.Place.Keys.Stamp() {
		o.Stamp = o.Place.Keys.Stamp()
		if o.Keys, err = o.Place.ReadKeys(); err == nil {
			err = o.bind(ctx, prefix, now())
		}
	}
	return err
}

// bind checks that keys and store belong together. A command that mints no personal access tokens gives no prefix. It
// then takes one that the store knows, so that none is added.
func (o *Opened) bind(ctx context.Context, prefix string, now time.Time) (err error) {
	if prefix == "" {
		err = o.View(ctx, func(tx tokens.ReadTx) error {
			known, err := tx.Prefixes()
			if len(known) > 0 {
				prefix = known[0]
			}
			return err
		})
	}
	if err == nil {
		o.prefixes, err = tokens.BindKeys(ctx, o.Store, o.Keys, prefix, now)
	}
	return err
}

// NewService makes the token service of an open store. A nil cache is for a short-lived command; a nil source is patd's
// own table.
func NewService(
	c *cli.Command,
	o *Opened,
	cached *cache.Cache,
	ring *tokens.Keyring,
	s *config.Settings,
	policy tokens.Policy,
	source tokens.FeatureSource,
) (*tokens.Service, error) {
	config := tokens.Config{
		Store: o.Store, Keys: ring, Features: source, Prefixes: o.prefixes, Policy: policy, Limits: s.Limits,
		CacheFor: time.Duration(s.CacheFor), SigningKeyDelay: time.Duration(s.SigningKeyDelay), Now: c.Now,
		ReturnOrigins: s.Page.Origins, HandoffTTL: s.HandoffTTL,
		RenewURL: string(s.Bearer.RenewURL), ForbidSelfRotate: !s.Bearer.SelfRotate,
		CheckWebhookURL: s.Webhooks.CheckURL,
		Notices:         s.Notices.Notices(),
	}
	if cached != nil {
		config.Store, config.Changes = cached, o.Feed()
	}
	return tokens.NewService(config)
}

// Closed closes what was opened.
func Closed(what string, opened io.Closer) error {
	if err := opened.Close(); err != nil {
		return fmt.Errorf("close %s: %w", what, err)
	}
	return nil
}
