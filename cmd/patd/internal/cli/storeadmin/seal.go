package storeadmin

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/tokens"
	"patd/tokens/secret"
)

// seal gives every row of the store its checksum, and records that it has one: in the database, which keeps earlier
// versions out, and in the key file, which nobody can change who can only write to the database. What was interrupted
// goes on where it was.
func (o *Opened) seal(ctx context.Context, c *cli.Command, log *slog.Logger) (text string, err error) {
	recorded, err := o.SealRecorded(ctx)
	if err != nil {
		return "", err
	}
	text = "the rows were sealed already"
	if recorded { // servers of the version before leave rows without checksums
		filled, err := o.FillLaterChecksums(ctx)
		if err != nil {
			return "", err
		}
		if filled > 0 {
			text += "; " + filledText(filled)
		}
	} else {
		if err := o.BeginSeal(ctx); err != nil {
			return "", err
		}
		var filled int64
		for again := true; again; {
			n, err := o.FillChecksums(ctx)
			if err != nil {
				return "", fmt.Errorf(
					"%s; the command goes on from there when it is run again: %w",
					filledText(filled+n),
					err,
				)
			}
			filled += n
			again = n > 0 // until none is left
		}
		if err := tokens.SealRows(ctx, o.Store, c.Now()); err != nil {
			return "", err
		}
		text = "the rows are sealed: " + filledText(filled)
	}
	if err := o.UseRowKeys(ctx, o.Keys); err != nil {
		return "", err
	}
	o.recordSeal(ctx, log)
	if o.Place.Remote() && o.Place.Keys != "" {
		fmt.Fprintf(c.Stderr, "patd: copy %s to every server on this store\n", o.Place.Keys)
	}
	return text, nil
}

func filledText(n int64) string { return cli.Counted(n, "row") + " got a checksum" }

// recordSeal adds the line that says that the rows are sealed to the key file, where only the database says so.
func (o *Opened) recordSeal(ctx context.Context, log *slog.Logger) {
	if o.Keys.RowsSealed() || !o.RowsSealed() {
		return
	}
	if o.Place.Keys == "" {
		log.Warn("the rows are sealed, and only the database says so, where it can be changed; add the line `" +
			secret.SealedLine() + "` to " + config.HashKeyVariable)
		return
	}
	if err := o.addSealedLine(ctx); err != nil {
		log.Warn("the rows are sealed, and only the database says so, where it can be changed; add the line `"+
			secret.SealedLine()+"` to the key file", "file", string(o.Place.Keys), "error", cli.Redact(err.Error()))
	}
}

func (o *Opened) addSealedLine(ctx context.Context) error {
	unlock, err := o.Place.Keys.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	text, err := o.Place.Keys.Text()
	if err != nil {
		return err
	}
	keys, err := secret.ParseKeys(text)
	if err != nil {
		return err
	}
	if !keys.RowsSealed() {
		text = strings.TrimRight(text, "\n") + "\n" + secret.SealedLine() + "\n"
		if err := o.Place.Keys.Replace(text); err != nil {
			return err
		}
	}
	stamp := o.Place.Keys.Stamp()
	if keys, err = o.Place.Keys.Read(); err != nil {
		return err
	}
	if err := o.UseRowKeys(ctx, keys); err != nil {
		return err
	}
	keys.Learn(o.Keys.Known())
	o.Keys, o.Stamp = keys, stamp
	return nil
}
