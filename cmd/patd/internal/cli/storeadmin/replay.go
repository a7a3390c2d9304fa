package storeadmin

import (
	"context"
	"errors"
	"fmt"
	"io"

	"patd/cmd/patd/internal/cli"
	"patd/tokens"
)

// replayed is what a replay did, and whether its file was whole.
type replayed struct {
	tokens.Replayed

	Torn bool `json:"torn"` // the last line was written in part only, and not read
}

// replay takes away from a store again what events of an export took away after the store's own newest one. gap lets
// events be missing between the two.
func (o *Opened) replay(ctx context.Context, c *cli.Command, path string, gap bool) (replayed, error) {
	done, err := o.replayFile(ctx, c, path, gap)
	if err != nil {
		return done, fmt.Errorf("replay %s: %w", path, err)
	}
	return done, nil
}

func (o *Opened) replayFile(ctx context.Context, c *cli.Command, path string, gap bool) (replayed, error) {
	var first, last uint64
	whole, err := readEvents(path, func(e tokens.Event) error {
		if first == 0 {
			first = e.Seq
		}
		last = e.Seq
		return nil
	})
	switch {
	case err != nil:
		return replayed{}, err
	case last == 0:
		return replayed{}, errors.New("there is no event in it")
	}
	base, err := o.newestUpTo(ctx, last)
	if err != nil {
		return replayed{}, err
	}
	if first > base.Seq+1 && !gap {
		return replayed{}, fmt.Errorf(
			"it begins at position %d, and the store ends at %d: what was revoked in between is not in it. "+
				"Use an export from an earlier position, or --allow-gap, and see what of it works again by `patd credential list`",
			first,
			base.Seq,
		)
	}
	var r tokens.Replay
	met := first > base.Seq
	_, err = readEvents(path, func(e tokens.Event) error {
		switch {
		case e.Seq == base.Seq:
			if met = sameEvent(e, base); !met {
				return fmt.Errorf("its event at position %d is another than the store's: it is of another store", e.Seq)
			}
		case e.Seq > base.Seq && !met:
			return fmt.Errorf(
				"it lacks the event at position %d, which the store has: it is of another store",
				base.Seq,
			)
		case e.Seq > base.Seq:
			r.Add(e)
		}
		return nil
	})
	if err != nil {
		return replayed{}, err
	}
	if err := o.SkipEvents(ctx, last); err != nil {
		return replayed{}, err
	}
	if err := o.bind(ctx, "", c.Now()); err != nil { // the current key may be newer than the backup
		return replayed{}, err
	}
	done, err := r.Apply(ctx, o.Store, o.Keys, c.Now)
	return replayed{done, !whole}, err
}

// newestUpTo returns the newest event of a store up to a position; the zero event: there is none. A replay that was
// interrupted has left events above it.
func (o *Opened) newestUpTo(ctx context.Context, position uint64) (e tokens.Event, err error) {
	err = o.View(ctx, func(tx tokens.ReadTx) error {
		found, err := tx.Events(tokens.EventQuery{Before: position + 1, Limit: 1})
		if len(found) > 0 {
			e = found[0]
		}
		return err
	})
	return e, err
}

// report says for people what a replay did.
func (r replayed) report(w io.Writer) {
	if r.Torn {
		fmt.Fprint(
			w,
			"patd: warning: the last line of the export was written in part only: its event was not applied\n",
		)
	}
	if r.Events == 0 {
		fmt.Fprint(w, "patd: the export has no event that the store has not\n")
		return
	}
	fmt.Fprintf(
		w,
		"patd: applied again what was taken away at positions %d to %d: from %s, %s, %s, %s of what came of tokens, %s; %s of what was made since the backup\n",
		r.From,
		r.To,
		cli.Counted(int64(r.Tokens), "token"),
		cli.Counted(int64(r.Users), "user"),
		cli.Counted(int64(r.Services), "service"),
		cli.Counted(
			int64(r.Grants),
			"grant",
		),
		cli.Counted(int64(r.Others), "other record"),
		cli.Counted(int64(r.Absent), "record"),
	)
	for _, one := range r.Lost {
		fmt.Fprintf(
			w,
			"patd: its newest secret is lost, since it was made after the backup; rotate it, or make it anew: %s\n",
			cli.Cell(one),
		)
	}
	for _, one := range r.Review {
		fmt.Fprintf(w, "patd: to review: %s\n", cli.Cell(one))
	}
}
