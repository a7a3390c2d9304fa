package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"syscall"
	"time"

	"patd/store/cache"
	"patd/tokens"
)

// reloadEvery is how often a server looks whether its key file has changed.
const reloadEvery = time.Second

// follow exchanges the keys in the ring when the key file changes, or on a hint that it might have, until ctx ends. A
// file that is not good, or not the store's, is logged and the keys stay as they are; it is tried again each time.
func (o *opened) follow(ctx context.Context, ring *tokens.Keyring, prefix string, hint <-chan os.Signal, c *command, log *slog.Logger) {
	if o.place.keys == "" {
		return // from the environment, which does not change
	}
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	good, complaint := o.stamp, ""
	for {
		hinted := false
		select {
		case <-ctx.Done():
			return
		case <-hint:
			hinted = true
		case <-tick.C:
		}
		now := o.place.keys.stamp()
		if now == good && !hinted {
			continue
		}
		ks, err := o.reload(ctx, prefix, c.now())
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if text := redact(err.Error()); text != complaint {
				log.Error("cannot read the hash key file; keeping the current keys", "error", text)
				complaint = text
			}
		default:
			ring.Set(ks)
			good, complaint = now, ""
			log.Info("hash keys read again", "current", ks.Current(), "keys", ks.Names())
		}
	}
}

// reload reads the key file again and makes sure that it still belongs to the store. Keys that are new to the store are
// added to it before anything is digested under them.
func (o *opened) reload(ctx context.Context, prefix string, now time.Time) (*tokens.Keys, error) {
	ks, err := o.place.keys.read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the hash key %s is gone", o.place.keys)
	}
	if err != nil {
		return nil, err
	}
	if _, err := tokens.BindKeys(ctx, o.Store, ks, prefix, now); err != nil {
		return nil, err
	}
	return ks, nil
}

// ready reports whether the server could serve now, and could be started again: a key file that cannot be read would show
// at the next start only.
func (o *opened) ready(cached *cache.Cache) func(context.Context) error {
	return func(ctx context.Context) error {
		if o.place.keys != "" {
			if _, err := o.place.keys.read(); err != nil {
				return err
			}
		}
		return cached.Ready(ctx)
	}
}

// stamp is what changes when a file does: when it was written, how long it is, and which file it is.
type stamp struct {
	written time.Time
	size    int64
	node    uint64
}

func (k keyFile) stamp() stamp {
	info, err := os.Stat(string(k))
	if err != nil {
		return stamp{size: -1}
	}
	s := stamp{written: info.ModTime(), size: info.Size()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		s.node = stat.Ino
	}
	return s
}
