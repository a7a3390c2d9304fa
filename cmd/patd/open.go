package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"patd/store"
	"patd/tokens"
)

// place is where a store and its keys are.
type place struct {
	database string  // the store's file
	keys     keyFile // empty: the keys are in the environment
	given    string  // text of the keys, from the environment
}

// hashKeyVariable holds the text of a key file. There is no flag for it: arguments are for all to see.
const hashKeyVariable = "PATD_HASH_KEY"

// place reads the settings that say where the store and its keys are.
func (c *command) place(s *settings) (place, error) {
	var p place
	switch path, sqlite := strings.CutPrefix(s.databaseURL, "sqlite:"); {
	case sqlite && path != "":
		p.database = path
	case s.databaseURL != "":
		return p, errors.New("--database-url must be sqlite:PATH; other databases are not supported yet")
	case s.dataDir != "":
		p.database = filepath.Join(s.dataDir, "patd.db")
	default:
		return p, errors.New("say where the store is: --data-dir DIR")
	}
	text, given := c.Getenv(hashKeyVariable)
	switch {
	case given && s.hashKeyFile != "":
		return p, errors.New("give the hash key by --hash-key-file or by " + hashKeyVariable + ", not by both")
	case given && strings.TrimSpace(text) == "":
		return p, errors.New(hashKeyVariable + " is set, but empty")
	case given:
		p.given = text
	case s.hashKeyFile != "":
		p.keys = keyFile(s.hashKeyFile)
	case s.dataDir != "":
		p.keys = keyFile(filepath.Join(s.dataDir, "hash.key"))
	default:
		return p, errors.New("say where the hash key is: --data-dir DIR, --hash-key-file FILE or " + hashKeyVariable)
	}
	return p, nil
}

// opened is an open store with the keys that belong to it.
type opened struct {
	*store.Store
	place    place
	fresh    bool // made just now
	stamp    stamp
	keys     *tokens.Keys
	prefixes tokens.Prefixes
}

// open opens a store, or makes a new one with its key, and makes sure that the two belong together.
func (c *command) open(ctx context.Context, s *settings, log *slog.Logger) (*opened, error) {
	p, err := c.place(s)
	if err != nil {
		return nil, err
	}
	if err := makeDir(s.dataDir); err != nil {
		return nil, err
	}
	fresh, err := absent(p.database)
	if err != nil {
		return nil, err
	}
	stamp := p.keys.stamp()
	ks, err := p.readKeys()
	if err != nil {
		return nil, err
	}
	st, err := store.Open(ctx, "sqlite:"+p.database, store.Options{Logger: log, Now: c.now})
	if err != nil {
		return nil, err
	}
	o := &opened{Store: st, place: p, fresh: fresh, stamp: stamp, keys: ks}
	err = o.bind(ctx, s.personalPrefix, c.now())
	// Keys that were rotated since they were read look like the wrong ones.
	for err != nil && o.stamp != p.keys.stamp() {
		o.stamp = p.keys.stamp()
		if o.keys, err = p.readKeys(); err == nil {
			err = o.bind(ctx, s.personalPrefix, c.now())
		}
	}
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	p.keys.sweep(c.now())
	if p.keys != "" && p.keys.readableByOthers() {
		log.Warn("the hash key can be read by others than its owner; chmod 600 it", "file", string(p.keys))
	}
	return o, nil
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
	if !errors.Is(err, fs.ErrNotExist) {
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
	return syncDir(filepath.Dir(filepath.Clean(dir)))
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
func (c *command) service(o *opened, cached *store.Cached, ring *tokens.Keyring, s *settings, policy tokens.Policy, source tokens.FeatureSource) (*tokens.Service, error) {
	config := tokens.Config{
		Store: o.Store, Keys: ring, Features: source, Prefixes: o.prefixes, Policy: policy, Limits: s.limits,
		CacheFor: time.Duration(s.cacheFor), Now: c.now,
	}
	if cached != nil {
		config.Store, config.Changes = cached, o.Feed()
	}
	return tokens.NewService(config)
}
