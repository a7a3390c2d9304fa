package storeadmin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/internal/durable"
	"patd/store"
	"patd/tokens"
)

// restoring are the flags of a restore.
type restoring struct {
	config.Settings

	file   string // the backup; empty: the store that is there is left as it is, but for a replay
	replay string // an export of events; empty: none
	gap    bool
	asJSON bool
}

// Restore is the command that restores a backup.
func Restore(c *cli.Command) *cobra.Command {
	s := restoring{Settings: config.Settings{DatabaseTimeout: config.Patient}}
	cmd := &cobra.Command{
		Use:   "restore [FILE] --data-dir DIR [--replay EVENTS]",
		Short: "Put a backup in the place of the store, the server being stopped",
		Long: `Put a backup in the place of the store, the server being stopped; while another process uses the store, nothing is done.
The backup is checked first, and against the key file, which must be in its place already. The store that was there
is kept beside it, as patd.db.before-restore-TIME. In PostgreSQL the backup is copied into a database without a store in it.

Everything is then as it was when the backup was made: tokens made since are gone, and those revoked since work again,
unless --replay names an export of the audit log (` + "`patd events export`" + `): what was revoked, suspended, deleted, blocked or
narrowed since the backup, as far as the export goes, is so again before the store is put into its place. A secret that was
replaced since ends when it would have. What the events do not say enough about is reported, to be reviewed.

Without FILE, --replay works on the store that is there, which the database's own means have restored; run it before the servers start.

` + "`patd credential list`" + ` then lists what works, and ` + "`patd credential end`" + ` ends it.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return errors.New("takes one argument: FILE")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.replay, "replay", "", "take away again what the events in this `file` took away since the backup")
	f.BoolVar(&s.gap, "allow-gap", false, "replay although events between the backup and the export are missing")
	f.BoolVar(&s.asJSON, "json", false, "print JSON")
	cli.Grouped(cmd.Flags(), "Store", s.StoreFlags)
	cmd.Flags().Lookup("data-dir").Usage = "`directory` to put the store into, its key being there"
	cli.Grouped(cmd.Flags(), "Log", func(f *pflag.FlagSet) { s.LogFlags(f, "warn", "text") })
	var log *slog.Logger
	cmd.PreRunE = func(_ *cobra.Command, args []string) (err error) {
		if len(args) > 0 {
			s.file = args[0]
		}
		switch {
		case s.file == "" && s.replay == "":
			return errors.New("takes one argument: FILE; or --replay EVENTS for a store that is restored already")
		case s.gap && s.replay == "":
			return errors.New("--allow-gap is a setting of --replay")
		}
		if log, err = config.NewLogger(c, &s.Settings); err == nil {
			_, err = config.PlaceOf(c, &s.Settings)
		}
		return err
	}
	cmd.RunE = c.Run(func(ctx context.Context, _ []string) error {
		if s.file == "" {
			return replayHere(ctx, c, &s, log)
		}
		return restoreStore(ctx, c, &s, log)
	})
	return cmd
}

// replayHere replays on the store that is there.
func replayHere(ctx context.Context, c *cli.Command, s *restoring, log *slog.Logger) (err error) {
	o, err := openKept(ctx, c, &s.Settings, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, Closed("the store", o)) }()
	var out restored
	if out.Replay, err = o.replayed(ctx, c, s); err != nil {
		return err
	}
	if out.summary, err = summarize(ctx, o.Store, o.Place); err != nil {
		return err
	}
	return out.print(c, s)
}

// replayed is replay, if a file was given.
func (o *Opened) replayed(ctx context.Context, c *cli.Command, s *restoring) (*replayed, error) {
	if s.replay == "" {
		return nil, nil //nolint:nilnil // none was asked for
	}
	done, err := o.replay(ctx, c, s.replay, s.gap)
	return &done, err
}

// restored is what a restore reports.
type restored struct {
	summary

	Kept   string    `json:"kept,omitempty"` // the store that was there
	Replay *replayed `json:"replay,omitempty"`
}

func (r restored) print(c *cli.Command, s *restoring) error {
	switch {
	case r.Replay != nil:
		r.Replay.report(c.Stderr)
		fmt.Fprint(c.Stderr, "patd: what was made after the backup is gone; `patd credential list` shows what works\n")
	default:
		fmt.Fprint(
			c.Stderr,
			"patd: tokens made since that backup are gone, and those revoked since work again; start the server and revoke them anew, or restore it with --replay\n",
		)
	}
	if s.asJSON {
		return c.JSON(r)
	}
	_, err := fmt.Fprintln(c.Stdout, r.summary)
	return err
}

func restoreStore(ctx context.Context, c *cli.Command, s *restoring, log *slog.Logger) error {
	p, err := config.PlaceOf(c, &s.Settings)
	if err != nil {
		return err
	}
	if err := restorable(p, s.file); err != nil {
		return err
	}
	keys, err := presentKeys(p)
	if err != nil {
		return err
	}
	beside := os.TempDir()
	if !p.Remote() {
		if err := config.MakeDir(s.DataDir); err != nil {
			return err
		}
		unlock, err := exclusively(p)
		if err != nil {
			return err
		}
		defer unlock()
		beside = filepath.Dir(p.Database)
	}
	// In a directory of its own beside the store, so that SQLite's own files are removed with it.
	dir, err := os.MkdirTemp(beside, ".restore-*") // mode 0700
	if err != nil {
		return fmt.Errorf("restore %s: %w", s.file, err)
	}
	defer os.RemoveAll(dir)
	part := filepath.Join(dir, "patd.db")
	if err := durable.Copy(part, s.file); err != nil {
		return fmt.Errorf("restore %s: %w", s.file, err)
	}
	out, err := verifyCopy(ctx, c, s, part, keys, p, log)
	if err != nil {
		return fmt.Errorf("%s is not restored: %w", s.file, causeOf(err))
	}
	if !p.Remote() {
		if out.Kept, err = replaceBy(p, part, keptName(p, c.Now())); err != nil {
			return fmt.Errorf("restore %s: %w", s.file, err)
		}
	}
	fmt.Fprintf(c.Stderr, "patd: restored %s\n", s.file)
	if out.Kept != "" {
		fmt.Fprintf(c.Stderr, "patd: the store that was there is %s\n", out.Kept)
	}
	out.Database = p.String()
	return out.print(c, s)
}

// causeOf returns what is wrong with a backup. The text around it is about a store in use: it would have the operator
// stop the server and restore a backup.
func causeOf(err error) error {
	var fault *tokens.Error
	if errors.As(err, &fault) && fault.Reason == "STORE_UNAVAILABLE" && fault.Cause != nil {
		return fault.Cause
	}
	return err
}

// restorable refuses a file that cannot be a backup.
func restorable(p config.Place, file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return fmt.Errorf("look for the backup: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file", file)
	case info.Size() == 0:
		return fmt.Errorf("%s is empty", file)
	}
	if present, err := os.Stat(p.Database); err == nil && os.SameFile(info, present) {
		return fmt.Errorf("%s is the store itself", file)
	}
	for _, suffix := range []string{"-wal", "-journal"} {
		if log, err := os.Stat(file + suffix); err == nil && log.Size() > 0 {
			return fmt.Errorf(
				"%s is not whole without %s%s beside it: it was copied from a store in use; `patd backup` makes a copy that is whole",
				file,
				file,
				suffix,
			)
		}
	}
	return nil
}

// presentKeys reads the keys, and creates none.
func presentKeys(p config.Place) (*tokens.Keys, error) {
	if p.Keys == "" {
		return p.ReadKeys()
	}
	ks, err := p.Keys.Read()
	if errors.Is(err, fs.ErrNotExist) {
		if p.Remote() {
			return nil, fmt.Errorf(
				"the hash key %s is missing; `patd migrate` makes it together with a new store, and every server on that store needs a copy",
				p.Keys,
			)
		}
		return nil, fmt.Errorf(
			"the hash key %s is missing; put the key file that belongs to the backup there first",
			p.Keys,
		)
	}
	return ks, err
}

// The positions of SQLite's locks on a file between processes: a process with a database open in WAL mode holds a
// shared lock on part of this range, and opening one needs it (https://sqlite.org/fileformat2.html#the_lock_byte_page).
const (
	lockBytesStart = 1 << 30
	lockBytesLen   = 512
)

var errInUse = errors.New("the store is in use by another process; stop the server first")

// exclusively keeps every other process from using or opening the store until it is unlocked, and fails when one has it
// open. It takes SQLite's locks without SQLite: the present store may be damaged. Do not close any descriptor of these
// files meanwhile, since that releases the locks.
func exclusively(p config.Place) (unlock func(), err error) {
	var held []*os.File
	unlock = func() {
		for _, f := range held {
			f.Close()
		}
	}
	// Opening a store begins with the lock on the file beside it.
	for _, l := range []struct {
		file string
		flag int
	}{{p.Database + ".lock", os.O_RDWR | os.O_CREATE}, {p.Database, os.O_RDWR}} {
		f, err := os.OpenFile(l.file, l.flag, 0o600)
		if errors.Is(err, fs.ErrNotExist) && l.file == p.Database {
			continue // there is no store yet
		}
		if err != nil {
			unlock()
			return nil, fmt.Errorf("lock the store: %w", err)
		}
		held = append(held, f)
		if l.flag&os.O_CREATE != 0 {
			if err := durable.InheritDir(l.file, filepath.Dir(p.Database)); err != nil {
				unlock()
				return nil, fmt.Errorf("lock the store: %w", err)
			}
		}
		lock := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart, Start: lockBytesStart, Len: lockBytesLen}
		err = syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lock)
		if err != nil {
			unlock()
			if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
				return nil, errInUse
			}
			return nil, fmt.Errorf("lock the store: %w", err)
		}
	}
	return unlock, nil
}

// verifyCopy opens a copy of a backup as the future store, up to date and whole in one file, checks it, and takes away
// again what the export says. If the place is a database in PostgreSQL, it copies the store into it.
func verifyCopy(
	ctx context.Context,
	c *cli.Command,
	s *restoring,
	copied string,
	keys *tokens.Keys,
	to config.Place,
	log *slog.Logger,
) (out restored, err error) {
	st, err := store.Open(ctx, "sqlite:"+copied, store.Options{Logger: log, Now: c.Now})
	if err != nil {
		return restored{}, err
	}
	o := &Opened{Store: st, Place: config.Place{Database: copied}, Keys: keys}
	if err = o.useRowKeys(ctx, keys); err == nil {
		out.summary, err = sound(ctx, st, copied)
	}
	if err == nil && s.replay != "" {
		if out.Replay, err = o.replayed(ctx, c, s); err == nil {
			out.summary, err = sound(ctx, st, copied) // a replay that broke a rule is not put into place
		}
	}
	if err == nil && to.Remote() {
		_, err = st.Copy(ctx, to.URL(), storeOptions(c, to, &s.Settings, log))
	}
	if err != nil {
		return restored{}, errors.Join(err, st.Close())
	}
	if err := st.Close(); err != nil {
		return restored{}, fmt.Errorf("close the copy: %w", err)
	}
	if log, err := os.Stat(copied + "-wal"); err == nil && log.Size() > 0 {
		return restored{}, errors.New("the copy could not be made whole")
	}
	return out, nil
}

// useRowKeys is UseRowKeys for a backup that is restored, after a look at whether the keys are its own: under others
// every row looks as if it was edited. Where it is from before the rows of later tables had checksums, the operator
// vouches for them.
func (o *Opened) useRowKeys(ctx context.Context, keys *tokens.Keys) error {
	err := o.ours(ctx, keys)
	if err == nil {
		err = o.UseRowKeys(ctx, keys)
	}
	if err == nil {
		err = o.SealLater(ctx)
	}
	return err
}

// ours refuses a backup that is of other keys.
func (o *Opened) ours(ctx context.Context, keys *tokens.Keys) error {
	known, err := o.knownKeys(ctx)
	switch {
	case err != nil:
		return err
	case len(known) == 0:
		return errors.New("there is nothing in it")
	}
	if err := keys.Verify(known); err != nil {
		return fmt.Errorf("%w; the key file needs the keys from the time of the backup, below the current one", err)
	}
	return nil
}

func sound(ctx context.Context, st *store.Store, database string) (summary, error) {
	found, err := st.Check(ctx)
	if err != nil {
		return summary{}, err
	}
	if len(found) == 1 && strings.Contains(found[0], store.SealRows) {
		return summary{}, errors.New(
			"it is from before the rows were sealed, as the key file says that they are; if you vouch for what it " +
				"holds, first run `" + store.SealRows + " --database-url sqlite:FILE --hash-key-file FILE` on it",
		)
	}
	if len(found) > 0 {
		return summary{}, fmt.Errorf(
			"it has %s, the first of them: %s",
			cli.Counted(int64(len(found)), "problem"),
			found[0],
		)
	}
	return summarize(ctx, st, config.Place{Database: database})
}

// keptName returns the name under which the store that is there is kept: with the time, and a number if there is one of
// the same second.
func keptName(p config.Place, now time.Time) string {
	name := p.Database + ".before-restore-" + now.UTC().Format("20060102T150405Z")
	for n, free := 2, name; ; n++ {
		if _, err := os.Lstat(free); err != nil {
			return free
		}
		free = fmt.Sprintf("%s-%d", name, n)
	}
}

// replaceBy puts a file in the place of the store, and keeps the old store under a name, which it returns if there was
// one.
//
// The old store keeps its name until the new one takes it, atomically. Its log must go before: SQLite would replay it
// into any database beside it. Only a power loss between the two leaves the old store without the contents of its log;
// the names it is kept under are complete by then.
func replaceBy(p config.Place, part, name string) (aside string, err error) {
	dir := filepath.Dir(p.Database)
	var logs []string
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		switch err := durable.Keep(p.Database+suffix, name+suffix); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return "", fmt.Errorf("keep the present store: %w", err)
		case suffix == "":
			aside = name
		default:
			logs = append(logs, p.Database+suffix)
		}
	}
	if aside != "" {
		err = durable.Inherit(part, p.Database)
	} else {
		err = durable.InheritDir(part, dir)
	}
	if err != nil {
		return "", err
	}
	if err := durable.SyncDir(dir); err != nil {
		return "", err
	}
	for _, l := range logs {
		if err := os.Remove(l); err != nil {
			return "", fmt.Errorf("take the present store away: %w", err)
		}
	}
	if len(logs) > 0 {
		if err := durable.SyncDir(dir); err != nil {
			return "", err
		}
	}
	if err := os.Rename(part, p.Database); err != nil {
		return "", err
	}
	return aside, durable.SyncDir(dir)
}
