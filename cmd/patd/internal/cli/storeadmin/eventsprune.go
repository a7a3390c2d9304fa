package storeadmin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/internal/durable"
	"patd/tokens"
)

// EventsPrune is the command that prunes the audit log.
func EventsPrune(c *cli.Command) *cobra.Command {
	var (
		before, archive string
		older           cli.Duration
		asJSON          bool
	)
	cmd := &cobra.Command{
		Use:   "prune --older-than DURATION --data-dir DIR",
		Short: "Delete the older events of the audit log, on the store itself",
		Long: `Delete the older events of the audit log, on the store itself, the server running or not. This cannot be undone. With --archive they
are first written to a new file, one JSON object a line, oldest first, which only its owner can read.

The pruning is itself an event, audit.prune, which says how many events were deleted and up to which position. Positions are
never given again. In a store in a file the room is used again for what comes; the file itself gets no smaller.`,
		Args: cli.Takes(),
	}
	f := cmd.Flags()
	f.StringVar(&before, "before", "", "delete what was before this `time`, such as 2026-01-31 or 2026-01-31T12:00:00Z")
	f.Var(&older, "older-than", "delete what is older than this, such as 400d")
	f.StringVar(&archive, "archive", "", "first write the events to this new `file`")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	var cut time.Time
	cmd = keptStoreCommand(c, cmd, func(ctx context.Context, o *Opened, _ []string) error {
		if cut.IsZero() {
			cut = c.Now().Add(-time.Duration(older))
		}
		p := tokens.Pruning{Before: cut}
		kept := &EventArchive{Path: archive}
		if archive != "" {
			p.Archive = kept.Write
		}
		released, err := tokens.PruneEvents(ctx, o.Store, p, c.Now())
		if err = errors.Join(err, kept.Close()); errors.Is(err, tokens.ErrTaken) {
			return errors.New(
				"events were pruned by another at the same time; nothing was deleted by this command: run it again",
			)
		}
		if err != nil {
			return err
		}
		if _, err := o.DeleteReleased(ctx, 0); err != nil {
			return fmt.Errorf(
				"%d events are released, and not all of them are deleted yet; a server deletes them, or this command when it is run again: %w",
				released,
				err,
			)
		}
		if asJSON {
			return c.JSON(struct {
				Deleted int64     `json:"deleted"`
				Before  time.Time `json:"before"`
			}{released, cut.UTC()})
		}
		_, err = fmt.Fprintf(
			c.Stdout,
			"deleted %s before %s\n",
			cli.Counted(released, "event"),
			cut.UTC().Format(time.RFC3339),
		)
		return err
	})
	ready := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) (err error) {
		if (before == "") != f.Changed("older-than") {
			return errors.New("say which events to delete: by --older-than or by --before")
		}
		if before != "" {
			if cut, err = parseTime(before); err != nil {
				return err
			}
		}
		return ready(cmd, args)
	}
	return cmd
}

// parseTime reads a moment, or a day, which begins at midnight UTC.
func parseTime(s string) (time.Time, error) {
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(form, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errors.New("--before must be a time such as 2026-01-31T12:00:00Z, or a day such as 2026-01-31")
}

// EventArchive writes events to a new file, which the first event creates.
type EventArchive struct {
	Path string
	file *os.File
	text *bufio.Writer
}

// ArchivedEvent is a line of an archive.
type ArchivedEvent struct {
	Position uint64    `json:"position"`
	Time     time.Time `json:"time"`
	Actor    string    `json:"actor"`
	Action   string    `json:"action"`
	Outcome  string    `json:"outcome"`
	User     string    `json:"user,omitempty"`
	TokenID  string    `json:"token_id,omitempty"`
	Service  string    `json:"service,omitempty"`
	PeerIP   string    `json:"peer_ip,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Detail   string    `json:"detail,omitempty"`
}

// Write implements tokens.Pruning.Archive.
func (a *EventArchive) Write(events []tokens.Event) (err error) {
	if a.file == nil {
		a.file, err = os.OpenFile(a.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return fileFault("archive events in "+a.Path, "an archive", err)
		}
		a.text = bufio.NewWriterSize(a.file, 1<<16)
		if err := durable.InheritDir(a.Path, filepath.Dir(a.Path)); err != nil {
			return err
		}
	}
	if err := writeArchived(a.text, events); err != nil {
		return fileFault("archive events in "+a.Path, "an archive", err)
	}
	if len(events) > 0 {
		return nil
	}
	if err := errors.Join(a.text.Flush(), a.file.Sync(), durable.SyncDir(filepath.Dir(a.Path))); err != nil {
		return fileFault("archive events in "+a.Path, "an archive", err)
	}
	return nil
}

// Close closes the archive; its events are on disk then.
func (a *EventArchive) Close() error {
	if a.file == nil {
		return nil
	}
	return a.file.Close()
}

// Retain prunes the audit log by --audit-retention, until ctx ends.
func (o *Opened) Retain(ctx context.Context, s *config.Settings, now func() time.Time, log *slog.Logger) {
	keep := time.Duration(s.AuditRetention)
	if keep == 0 {
		return
	}
	tick := time.NewTicker(config.PruneInterval)
	defer tick.Stop()
	for {
		switch released, err := o.PruneOlder(ctx, keep, now()); {
		case errors.Is(err, tokens.ErrTaken), ctx.Err() != nil: // another server did
		case err != nil:
			log.Warn("the audit log could not be pruned", "cause", cli.Redact(err.Error()))
		case released > 0:
			log.Info("the audit log was pruned", "events", released, "older_than", s.AuditRetention.String())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// PruneOlder prunes events older than keep, once one is older by PruneSlack.
func (o *Opened) PruneOlder(ctx context.Context, keep time.Duration, now time.Time) (int64, error) {
	due, err := tokens.PruneDue(ctx, o.Store, now.Add(-keep-config.PruneSlack))
	if err != nil || !due {
		return 0, err
	}
	return tokens.PruneEvents(ctx, o.Store, tokens.Pruning{
		Before: now.Add(-keep), Note: "by --audit-retention " + tokens.FormatDuration(keep),
	}, now)
}
