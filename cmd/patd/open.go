package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"patd/internal/durable"
	"patd/store"
	"patd/store/cache"
	"patd/tokens"
)

// opened is an open store with the keys that belong to it.
type opened struct {
	*store.Store
	place    place
	fresh    bool // made just now
	stamp    stamp
	keys     *tokens.Keys
	prefixes tokens.Prefixes
}

// open opens a store, or makes a new one with its key, and makes sure that the two belong together. One in PostgreSQL is made
// by migrate alone.
func (c *command) open(ctx context.Context, s *settings, log *slog.Logger) (*opened, error) {
	p, err := c.place(s)
	if err != nil {
		return nil, err
	}
	o := &opened{place: p, stamp: p.keys.stamp()}
	if p.remote() {
		o.keys, err = p.presentKeys()
	} else {
		o.keys, o.fresh, err = p.keysOfFile(s)
	}
	if err != nil {
		return nil, err
	}
	if o.Store, err = store.Open(ctx, p.url(), c.storeOptions(p, s, log)); err != nil {
		return nil, err
	}
	if err := o.belong(ctx, s.personalPrefix, c.now); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	p.keys.sweep(c.now())
	if p.keys != "" && p.keys.readableByOthers() {
		log.Warn("the hash key can be read by others than its owner; chmod 600 it", "file", string(p.keys))
	}
	for _, dir := range p.writableByOthers() {
		log.Warn("others than its owner can write to this directory, and so replace the store or its key; chmod 700 it", "directory", dir)
	}
	return o, nil
}

// keysOfFile reads the keys of a store in a file, and makes the first one of a store that does not exist yet.
func (p place) keysOfFile(s *settings) (ks *tokens.Keys, fresh bool, err error) {
	if err := makeDir(s.dataDir); err != nil {
		return nil, false, err
	}
	if fresh, err = absent(p.database); err != nil {
		return nil, false, err
	}
	ks, err = p.readKeys()
	return ks, fresh, err
}

func (c *command) storeOptions(p place, s *settings, log *slog.Logger) store.Options {
	o := store.Options{Logger: log, Now: c.now, Reserve: int64(s.diskReserve)}
	if p.remote() {
		o.Password, o.Connections, o.StatementTimeout = s.password(), int(s.databaseConnections), time.Duration(s.databaseTimeout)
	}
	return o
}

// belong makes sure that keys and store belong together. Keys that were rotated since they were read look like the wrong ones.
func (o *opened) belong(ctx context.Context, prefix string, now func() time.Time) error {
	err := o.bind(ctx, prefix, now())
	for err != nil && o.stamp != o.place.keys.stamp() {
		o.stamp = o.place.keys.stamp()
		if o.keys, err = o.place.readKeys(); err == nil {
			err = o.bind(ctx, prefix, now())
		}
	}
	return err
}

// bind makes sure that keys and store belong together. Without a prefix, which a command needs that mints no personal
// access tokens, one that the store knows will do, so that none is added.
func (o *opened) bind(ctx context.Context, prefix string, now time.Time) (err error) {
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
		o.prefixes, err = tokens.BindKeys(ctx, o.Store, o.keys, prefix, now)
	}
	return err
}

// readKeys reads the keys, and makes the first one of a store that does not exist yet. The key is there before the
// store, so a store without its key has lost it, and a new one would make every secret in it void.
func (p place) readKeys() (*tokens.Keys, error) {
	if p.keys == "" {
		ks, err := tokens.ParseKeys(p.given)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", hashKeyVariable, err)
		}
		return ks, nil
	}
	ks, err := p.keys.read()
	if !errors.Is(err, fs.ErrNotExist) || p.remote() {
		return ks, err
	}
	fresh, err := absent(p.database)
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := p.keys.create(); err != nil {
			return nil, err
		}
	}
	// Not fresh: another process may have made both since the key was looked for.
	ks, err = p.keys.read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the hash key %s is missing, but its store %s exists; put the key back from your backup (a new one would make every token in the store void)", p.keys, p.database)
	}
	return ks, err
}

// makeDir makes the data directory, for its owner alone.
func makeDir(dir string) error {
	if dir == "" {
		return nil
	}
	switch info, err := os.Stat(dir); {
	case err == nil && !info.IsDir():
		return fmt.Errorf("--data-dir %s is not a directory", dir)
	case err == nil:
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	return durable.SyncDir(filepath.Dir(filepath.Clean(dir)))
}

func absent(file string) (bool, error) {
	switch _, err := os.Stat(file); {
	case err == nil:
		return false, nil
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	default:
		return false, fmt.Errorf("look for the store: %w", err)
	}
}

// service makes the token service of an open store. A nil cache is for a command, which does little and is gone; a nil
// source is patd's own table.
func (c *command) service(o *opened, cached *cache.Cache, ring *tokens.Keyring, s *settings, policy tokens.Policy, source tokens.FeatureSource) (*tokens.Service, error) {
	config := tokens.Config{
		Store: o.Store, Keys: ring, Features: source, Prefixes: o.prefixes, Policy: policy, Limits: s.limits,
		CacheFor: time.Duration(s.cacheFor), SigningKeyDelay: time.Duration(s.signingKeyDelay), Now: c.now,
	}
	if cached != nil {
		config.Store, config.Changes = cached, o.Feed()
	}
	return tokens.NewService(config)
}
