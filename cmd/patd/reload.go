package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/storeadmin"
	"patd/store/cache"
	"patd/tokens"
)

// reloadEvery is how often a server checks whether its key file has changed.
const reloadEvery = time.Second

// followKeys replaces the keys in the ring when the key file changes, and on demand: it closes the channel that it then
// gets. It ends with ctx. If the file is unreadable or another store's, it logs that, keeps the current keys, and
// retries each time.
func followKeys(
	ctx context.Context,
	o *storeadmin.Opened,
	ring *tokens.Keyring,
	prefix string,
	demand <-chan chan<- struct{},
	c *cli.Command,
	log *slog.Logger,
) {
	if o.Place.Keys == "" {
		return // from the environment, which does not change
	}
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	good, complaint := o.Stamp, ""
	for {
		var done chan<- struct{}
		select {
		case <-ctx.Done():
			return
		case done = <-demand:
		case <-tick.C:
		}
		now := o.Place.Keys.Stamp()
		if now == good && done == nil {
			continue
		}
		ks, err := reloadKeys(ctx, o, prefix, c.Now())
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if text := cli.Redact(err.Error()); text != complaint || done != nil {
				log.Error("cannot read the hash key file; keeping the current keys", "error", text)
				complaint = text
			}
		default:
			ring.Set(ks)
			good, complaint = now, ""
			log.Info("hash keys read again", "current", ks.Current(), "keys", ks.Names())
		}
		if done != nil {
			close(done)
		}
	}
}

// reloadKeys reads the key file again and checks that it still belongs to the store. Keys that are new to the store are
// added to it before anything is digested under them.
func reloadKeys(ctx context.Context, o *storeadmin.Opened, prefix string, now time.Time) (*tokens.Keys, error) {
	ks, err := o.Place.Keys.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the hash key %s is gone", o.Place.Keys)
	}
	if err != nil {
		return nil, err
	}
	if _, err := tokens.BindKeys(ctx, o.Store, ks, prefix, now); err != nil {
		return nil, err
	}
	return ks, nil
}

// keysReady reports whether the server could serve now, and could be restarted: an unreadable key file would otherwise
// show only at the next start.
func keysReady(o *storeadmin.Opened, cached *cache.Cache) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := keysReadable(o); err != nil {
			return err
		}
		return cached.Ready(ctx)
	}
}

// keysReadable returns why the hash keys cannot be read.
func keysReadable(o *storeadmin.Opened) error {
	if o.Place.Keys == "" {
		return nil
	}
	_, err := o.Place.Keys.Read()
	return err
}
