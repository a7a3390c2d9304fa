package storeadmin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
	"patd/internal/durable"
	"patd/tokens"
	"patd/tokens/secret"
)

const (
	exportPage  = 1000
	exportEvery = time.Second
	// maxEventLine is longer than any line of an export: details are bounded.
	maxEventLine = 1 << 20
)

// EventsExport is the command that copies the audit log into a file.
func EventsExport(c *cli.Command) *cobra.Command {
	var follow, asJSON bool
	cmd := &cobra.Command{
		Use:   "export FILE --data-dir DIR",
		Short: "Copy the audit log into a file, and go on where an earlier export ended",
		Long: `Copy the audit log into a file, one JSON object a line, oldest first, the server running or not. A file that is there is gone on
with: only events after its last one are added. With --follow new events are added each second, until the command is stopped.

Keep the file on another machine, beside the backups: after a restore ` + "`patd restore FILE --replay EVENTS`" + ` takes away again what
was taken away since the backup. What was revoked after the last event in the file works again.`,
		Args: cli.Takes("FILE"),
	}
	f := cmd.Flags()
	f.BoolVar(&follow, "follow", false, "go on until stopped, and add new events each second")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return keptStoreCommand(c, cmd, func(ctx context.Context, o *Opened, args []string) error {
		x := &eventExport{path: args[0], warn: func(text string) { fmt.Fprintf(c.Stderr, "patd: warning: %s\n", text) }}
		if err := x.open(ctx, o); err != nil {
			return err
		}
		n, err := x.follow(ctx, o, follow)
		if err = errors.Join(err, x.file.Close()); err != nil {
			return err
		}
		if asJSON {
			return c.JSON(struct {
				Events   int    `json:"events"`
				Position uint64 `json:"position"`
			}{n, x.last})
		}
		_, err = fmt.Fprintf(c.Stdout, "exported %s, up to position %d\n", cli.Counted(int64(n), "event"), x.last)
		return err
	})
}

// eventExport is a file of events that grows.
type eventExport struct {
	path string
	warn func(string)
	file *os.File
	last uint64 // the position of its last event; 0: it has none
}

// open opens the file, or makes it, drops a line that was written in part, and checks that it is of this store.
func (x *eventExport) open(ctx context.Context, o *Opened) (err error) {
	if x.file, err = os.OpenFile(x.path, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return fileFault("export events to "+x.path, "an export", err)
	}
	if err := x.resume(ctx, o); err != nil {
		return fmt.Errorf("export events to %s: %w", x.path, errors.Join(err, x.file.Close()))
	}
	return nil
}

func (x *eventExport) resume(ctx context.Context, o *Opened) error {
	if err := syscall.Flock(int(x.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.New("another export writes this file")
	}
	info, err := x.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is not a file")
	}
	if info.Size() == 0 {
		return errors.Join(durable.InheritDir(x.path, filepath.Dir(x.path)), durable.SyncDir(filepath.Dir(x.path)))
	}
	end := make([]byte, min(info.Size(), maxEventLine))
	if _, err := x.file.ReadAt(end, info.Size()-int64(len(end))); err != nil {
		return err
	}
	whole := bytes.LastIndexByte(end, '\n') + 1
	lines := bytes.Split(bytes.TrimSuffix(end[:whole], []byte("\n")), []byte("\n"))
	if line := lines[len(lines)-1]; len(line) > 0 {
		e, err := parseArchived(line)
		if err == nil {
			err = o.ofThisStore(ctx, e)
		}
		if err != nil {
			return err
		}
		x.last = e.Seq
	}
	if torn := len(end) - whole; torn > 0 { // cut only now: a file of another store is left as it is
		x.warn(fmt.Sprintf("the last line of %s was written in part only: it is written again", x.path))
		if err := x.file.Truncate(info.Size() - int64(torn)); err != nil {
			return err
		}
	}
	_, err = x.file.Seek(0, io.SeekEnd)
	return err
}

// ofThisStore refuses an event that is not the one that the store has at its position. One that was pruned is believed.
func (o *Opened) ofThisStore(ctx context.Context, e tokens.Event) error {
	return o.View(ctx, func(tx tokens.ReadTx) error {
		released, _, err := tx.Released()
		if err != nil || e.Seq <= released {
			return err
		}
		found, err := tx.Events(tokens.EventQuery{Before: e.Seq + 1, Limit: 1})
		if err != nil {
			return err
		}
		if len(found) == 0 || !sameEvent(found[0], e) {
			return fmt.Errorf(
				"it ends with an event, at position %d, which this store does not have: it is of another store, or of the time before a restore; begin a new file",
				e.Seq,
			)
		}
		return nil
	})
}

// sameEvent reports whether two are the same, as far as an export tells.
func sameEvent(a, b tokens.Event) bool {
	return a.Seq == b.Seq && a.Time.Equal(b.Time) && a.Actor == b.Actor && a.Action == b.Action && a.User == b.User &&
		a.TokenID == b.TokenID && a.Outcome == b.Outcome
}

// follow adds events until there are no more, or until ctx ends.
func (x *eventExport) follow(ctx context.Context, o *Opened, on bool) (n int, err error) {
	tick := time.NewTicker(exportEvery)
	defer tick.Stop()
	for {
		added, err := x.add(ctx, o)
		if n += added; err != nil {
			if on && ctx.Err() != nil {
				return n, nil
			}
			return n, fmt.Errorf("export events to %s: %w", x.path, err)
		}
		if !on {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return n, nil
		case <-tick.C:
		}
	}
}

// add adds the events that are there, and puts them on disk.
func (x *eventExport) add(ctx context.Context, o *Opened) (n int, err error) {
	for {
		var page []tokens.Event
		var released uint64
		err := o.View(ctx, func(tx tokens.ReadTx) (err error) {
			if released, _, err = tx.Released(); err == nil {
				page, err = tx.OldestEvents(x.last, exportPage)
			}
			return err
		})
		if err != nil {
			return n, err
		}
		if len(page) == 0 {
			return n, nil
		}
		if x.last > 0 && released > x.last {
			x.warn(
				fmt.Sprintf(
					"events from position %d to %d were pruned, and some of them before they were exported",
					x.last+1,
					released,
				),
			)
		}
		var text bytes.Buffer
		if err := writeArchived(&text, page); err != nil {
			return n, err
		}
		if _, err := x.file.Write(text.Bytes()); err != nil {
			return n, err
		}
		if err := x.file.Sync(); err != nil {
			return n, err
		}
		x.last = page[len(page)-1].Seq
		if n += len(page); len(page) < exportPage {
			return n, nil
		}
	}
}

// writeArchived writes events as lines of an archive.
func writeArchived(w io.Writer, events []tokens.Event) error {
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	for _, e := range events {
		line := ArchivedEvent{
			Position: e.Seq, Time: e.Time, Actor: e.Actor, Action: string(e.Action), Outcome: "SUCCESS", User: e.User,
			Service: e.Service, Reason: e.Reason, Detail: e.Detail,
		}
		if e.Outcome == tokens.OutcomeRefused {
			line.Outcome = "REFUSED"
		}
		if e.TokenID != 0 {
			line.TokenID = e.TokenID.String()
		}
		if e.PeerIP.IsValid() {
			line.PeerIP = e.PeerIP.String()
		}
		if err := lines.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// parseArchived reads a line of an archive.
func parseArchived(text []byte) (tokens.Event, error) {
	var line ArchivedEvent
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&line); err != nil {
		return tokens.Event{}, fmt.Errorf("it is no line of an export: %w", err)
	}
	e := tokens.Event{
		Seq:     line.Position,
		Time:    line.Time,
		Actor:   line.Actor,
		Action:  tokens.Action(line.Action),
		Outcome: tokens.OutcomeSuccess,
		User:    line.User,
		Service: line.Service,
		Reason:  line.Reason,
		Detail:  line.Detail,
	}
	switch {
	case line.Position == 0 || line.Time.IsZero() || line.Action == "":
		return e, errors.New("it is no line of an export: it has no position, time or action")
	case line.Outcome == "REFUSED":
		e.Outcome = tokens.OutcomeRefused
	case line.Outcome != "SUCCESS":
		return e, fmt.Errorf("it is no line of an export: there is no outcome %q", line.Outcome)
	}
	if line.TokenID != "" {
		id, err := secret.ParseID(line.TokenID)
		if err != nil {
			return e, errors.New("it is no line of an export: its token id is none")
		}
		e.TokenID = id
	}
	e.PeerIP, _ = netip.ParseAddr(line.PeerIP)
	return e, nil
}

// readEvents calls each with the events of an export. It returns false if the last line was written in part only.
func readEvents(path string, each func(tokens.Event) error) (whole bool, err error) {
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	text := bufio.NewScanner(file)
	text.Buffer(make([]byte, 64<<10), maxEventLine)
	whole = true
	text.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			return i + 1, data[:i], nil
		}
		if atEOF && len(data) > 0 {
			whole = false
			return len(data), nil, nil
		}
		return 0, nil, nil
	})
	var last uint64
	for n := 1; text.Scan(); n++ {
		if len(text.Bytes()) == 0 && !whole {
			break
		}
		e, err := parseArchived(text.Bytes())
		switch {
		case err != nil:
			return whole, fmt.Errorf("line %d: %w", n, err)
		case e.Seq <= last:
			return whole, fmt.Errorf(
				"line %d: its position, %d, is not above the one before, %d: sort the lines by position, and leave each event once",
				n,
				e.Seq,
				last,
			)
		}
		if last = e.Seq; each != nil {
			if err := each(e); err != nil {
				return whole, err
			}
		}
	}
	return whole, text.Err()
}
