package storeadmin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/internal/durable"
	"patd/store"
	"patd/tokens"
	"patd/tokens/secret"
)

// Drill is the command that practises what an operator hopes never to do.
func Drill(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{Use: "drill", Short: "Practise bad days in a temporary place, on copies of the store"}
	return c.Group(cmd, drillRestore(c))
}

// drillStep is one thing that a drill did.
type drillStep struct {
	Step    string  `json:"step"`
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"`
	Detail  string  `json:"detail,omitempty"`
}

// mostNamed is how many credentials that would work again are named.
const mostNamed = 1000

// drill is a restore that is practised.
type drill struct {
	c      *cli.Command
	o      *Opened // the store itself, which is only read
	backup string
	events string
	dir    string
	revoke int

	OK    bool        `json:"ok"`
	Store string      `json:"store"`
	Steps []drillStep `json:"steps"`
	// RestoreSeconds is how long it took from the backup to a store that could be served.
	RestoreSeconds float64 `json:"restore_seconds"`
	// WorksAgain names credentials that the store refuses and the restored one does not, the first of them, and Again
	// counts all.
	WorksAgain []string  `json:"works_again"`
	Again      int       `json:"works_again_count"`
	Replay     *replayed `json:"replay,omitempty"`
}

func drillRestore(c *cli.Command) *cobra.Command {
	d := drill{c: c, revoke: 20}
	var asJSON bool
	var under string
	cmd := &cobra.Command{
		Use:   "restore --data-dir DIR [--backup FILE] [--replay EVENTS]",
		Short: "Restore a backup in a temporary place, and see that nothing that was revoked works again",
		Long: `Restore a backup in a temporary directory, take away again what the audit log says was taken away since, check the result, and
compare it with the store: every credential that works in the restored one must work in the store. Then it revokes credentials of the
restored copy, restores the backup once more with those events, and ends all that is left. The store itself is only read.

Without --backup it makes one, and without --replay it exports the events now. Name the files that you keep to see whether they would
do: credentials that would work again are listed, the first thousand of them, and the exit code is 1. It takes the room of two copies
of the store, of the events, and of lists of what works.`,
		Args: cli.Takes(),
	}
	f := cmd.Flags()
	f.StringVar(&d.backup, "backup", "", "the backup to restore, a `file`; a new one otherwise")
	f.StringVar(&d.events, "replay", "", "the export of events to replay, a `file`; a new one otherwise")
	f.Var((*cli.Count)(&d.revoke), "revoke", "how many credentials of the copy to revoke")
	f.StringVar(&under, "temp-dir", "", "`directory` for the copies; the system's for temporary files otherwise")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return keptStoreCommand(c, cmd, func(ctx context.Context, o *Opened, _ []string) (err error) {
		if d.dir, err = os.MkdirTemp(under, "patd-drill-*"); err != nil { // mode 0700
			return fmt.Errorf("make a temporary place: %w", err)
		}
		defer os.RemoveAll(d.dir)
		d.o, d.Store, d.WorksAgain, d.Steps = o, o.Place.String(), []string{}, []drillStep{}
		failed := d.run(ctx)
		d.OK = failed == nil
		if asJSON {
			err = c.JSON(&d)
		} else {
			err = d.print()
		}
		if failed != nil {
			return fmt.Errorf("the drill failed: %w", failed)
		}
		return err
	})
}

func (d *drill) print() error {
	rows := make([][]string, len(d.Steps))
	for i, s := range d.Steps {
		result := "ok"
		if !s.OK {
			result = "FAILED"
		}
		rows[i] = []string{s.Step, result, fmt.Sprintf("%.2f s", s.Seconds), cli.OrDash(s.Detail)}
	}
	if err := cli.Table(d.c.Stdout, []string{"STEP", "RESULT", "TIME", "DETAIL"}, rows); err != nil {
		return err
	}
	for _, one := range d.WorksAgain {
		fmt.Fprintf(d.c.Stdout, "works again: %s\n", cli.Cell(one))
	}
	if more := d.Again - len(d.WorksAgain); more > 0 {
		fmt.Fprintf(d.c.Stdout, "works again: %d more\n", more)
	}
	if d.Replay != nil {
		d.Replay.report(d.c.Stderr)
	}
	return nil
}

// step does one thing, and records what came of it.
func (d *drill) step(name string, do func() (detail string, err error)) error {
	began := time.Now()
	detail, err := do()
	s := drillStep{Step: name, OK: err == nil, Seconds: time.Since(began).Seconds(), Detail: detail}
	if err != nil {
		s.Detail = cli.Redact(err.Error())
		err = fmt.Errorf("%s: %w", name, err)
	}
	d.Steps = append(d.Steps, s)
	return err
}

var errWorksAgain = errors.New("credentials that the store refuses work again")

func (d *drill) run(ctx context.Context) error {
	if err := d.prepare(ctx); err != nil {
		return err
	}
	var present liveFile
	err := d.step("list what works in the store", func() (_ string, err error) {
		present, err = listLive(ctx, d.o, d.c.Now(), filepath.Join(d.dir, "present.jsonl"))
		return cli.Counted(int64(present.count), "credential"), err
	})
	if err == nil && d.events == "" {
		d.events = filepath.Join(d.dir, "events.jsonl")
		err = d.step("export the events", func() (string, error) { return d.export(ctx, d.o, d.events) })
	}
	if err != nil {
		return err
	}
	began := time.Now()
	double, err := d.restore(ctx, "double", d.events)
	if err != nil {
		return err
	}
	defer func() { _ = double.Close() }()
	d.RestoreSeconds = time.Since(began).Seconds()
	found, err := d.compare(ctx, double, present, "compare the restored store with the store")
	if err != nil {
		return err
	}
	return d.practise(ctx, double, found)
}

// prepare makes the backup, or looks at the one that was named.
func (d *drill) prepare(ctx context.Context) error {
	if d.backup == "" {
		d.backup = filepath.Join(d.dir, "backup.db")
		return d.step("back up", func() (string, error) {
			if err := d.o.Backup(ctx, d.backup); err != nil {
				return "", err
			}
			info, err := os.Stat(d.backup)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("%d bytes", info.Size()), nil
		})
	}
	return d.step("look at the backup", func() (string, error) { return d.backup, restorable(d.o.Place, d.backup) })
}

func (d *drill) export(ctx context.Context, o *Opened, path string) (string, error) {
	x := &eventExport{path: path, warn: func(string) {}}
	if err := x.open(ctx, o); err != nil {
		return "", err
	}
	n, err := x.add(ctx, o)
	return fmt.Sprintf(
			"%s, up to position %d",
			cli.Counted(int64(n), "event"),
			x.last,
		), errors.Join(
			err,
			x.file.Close(),
		)
}

// restore restores the backup under a name, with the events of an export, and checks it.
func (d *drill) restore(ctx context.Context, name, events string) (o *Opened, err error) {
	file := filepath.Join(d.dir, name+".db")
	err = d.step("restore as "+name+", and check", func() (string, error) {
		if err := durable.Copy(file, d.backup); err != nil {
			return "", err
		}
		st, err := store.Open(ctx, "sqlite:"+file, store.Options{Now: d.c.Now})
		if err != nil {
			return "", err
		}
		o = &Opened{Store: st, Place: config.Place{Database: file}, Keys: d.o.Keys}
		if err := o.useRowKeys(ctx, o.Keys); err != nil {
			return "", err
		}
		holds, err := sound(ctx, st, name)
		return cli.Counted(holds.Tokens, "token") + ", " + cli.Counted(holds.Services, "service"), err
	})
	if err == nil {
		err = d.step("replay the events in "+name+", and check", func() (string, error) {
			done, err := o.replay(ctx, d.c, events, false)
			if err != nil {
				return "", err
			}
			if d.Replay == nil {
				d.Replay = &done
			}
			_, err = sound(ctx, o.Store, name)
			return cli.Counted(int64(done.Events), "event"), err
		})
	}
	if err != nil && o != nil {
		err = errors.Join(err, o.Close())
	}
	return o, err
}

// compare wants that what works in a restored store works in another. It returns how many credentials that are.
func (d *drill) compare(ctx context.Context, o *Opened, with liveFile, what string) (found int, err error) {
	err = d.step(what, func() (string, error) {
		again := 0
		found, err = with.beyond(ctx, o, d.c.Now(), func(name string) {
			if again++; len(d.WorksAgain) < mostNamed {
				d.WorksAgain = append(d.WorksAgain, name)
			}
		})
		if d.Again += again; err != nil {
			return "", err
		}
		if again > 0 {
			return "", fmt.Errorf("%d of %d: %w", again, found, errWorksAgain)
		}
		return cli.Counted(int64(found), "credential") + ", none beyond", nil
	})
	return found, err
}

// practise revokes credentials of the copy, restores the backup once more with what the copy's audit log says, and ends
// all that is left.
func (d *drill) practise(ctx context.Context, double *Opened, found int) error {
	revoked := 0
	err := d.step("revoke in the copy", func() (_ string, err error) {
		revoked, err = d.takeAway(ctx, double, found)
		return cli.Counted(int64(revoked), "credential") + ", and a user suspended where there was one", err
	})
	if err != nil {
		return err
	}
	events := filepath.Join(d.dir, "practised.jsonl")
	err = d.step("export the copy's events", func() (string, error) { return d.export(ctx, double, events) })
	if err != nil {
		return err
	}
	left, err := listLive(ctx, double, d.c.Now(), filepath.Join(d.dir, "left.jsonl"))
	if err != nil {
		return err
	}
	again, err := d.restore(ctx, "again", events)
	if err != nil {
		return err
	}
	defer func() { _ = again.Close() }()
	if _, err := d.compare(ctx, again, left, "compare it with the copy"); err != nil {
		return err
	}
	return d.step("end all that works, and check", func() (string, error) { return d.endAll(ctx, again) })
}

// takeAway revokes some of so many credentials of a copy, spread over all, and suspends the user of another.
func (d *drill) takeAway(ctx context.Context, o *Opened, found int) (int, error) {
	var list []tokens.LiveCredential
	every, at, suspend := max(1, found/max(1, d.revoke)), 0, ""
	err := tokens.LiveCredentials(ctx, o.Store, d.c.Now(), func(v tokens.LiveCredential) error {
		switch {
		case at%every == 0 && len(list) < d.revoke:
			list = append(list, v)
		case v.Kind == tokens.CredentialToken:
			suspend = v.User
		}
		at++
		return ctx.Err()
	})
	if err != nil {
		return 0, err
	}
	n, err := tokens.EndCredentials(ctx, o.Store, list, "a drill", d.c.Now)
	if err != nil || suspend == "" {
		return n, err
	}
	service, err := NewService(d.c, o, nil, secret.NewKeyring(o.Keys), &config.Settings{}, tokens.Policy{}, nil)
	if err == nil {
		_, err = service.SuspendUser(ctx, tokens.Operator(), suspend, "a drill")
	}
	return n, err
}

func (d *drill) endAll(ctx context.Context, o *Opened) (string, error) {
	found := 0
	e := ending{store: o.Store, now: d.c.Now, reason: "a drill"}
	err := tokens.LiveCredentials(ctx, o.Store, d.c.Now(), func(v tokens.LiveCredential) error {
		found++
		return errors.Join(e.add(ctx, v), ctx.Err())
	})
	if err = errors.Join(err, e.flush(ctx)); err != nil {
		return "", err
	}
	left := 0
	err = tokens.LiveCredentials(ctx, o.Store, d.c.Now(), func(tokens.LiveCredential) error {
		left++
		return ctx.Err()
	})
	if err != nil {
		return "", err
	}
	if e.ended != found || left > 0 {
		return "", fmt.Errorf("%d of %d were ended, and %d work", e.ended, found, left)
	}
	_, err = sound(ctx, o.Store, "again")
	return "ended " + cli.Counted(int64(e.ended), "credential"), err
}
