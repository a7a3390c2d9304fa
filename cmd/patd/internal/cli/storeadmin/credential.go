package storeadmin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli"
	"patd/tokens"
)

// Credential is the command that lists and ends what works, on the store itself.
func Credential(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{Use: "credential", Short: "List and end all credentials that work, on the store itself"}
	return c.Group(cmd, credentialList(c), credentialEnd(c))
}

// whichCredentials selects credentials.
type whichCredentials struct {
	kinds  []string
	user   string
	before string
}

func (w *whichCredentials) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&w.kinds, "kind", nil, "only these `kinds`: token, service, session; repeat or separate by commas")
	f.StringVar(&w.user, "user", "", "only those of this `USER`")
	f.StringVar(&w.before, "issued-before", "", "only those from before this `time`, such as 2026-01-31T12:00:00Z")
}

func (w *whichCredentials) check() error {
	for _, k := range w.kinds {
		switch tokens.CredentialKind(k) {
		case tokens.CredentialToken, tokens.CredentialService, tokens.CredentialSession:
		default:
			return errors.New("--kind must be token, service or session")
		}
	}
	if w.before == "" {
		return nil
	}
	if _, err := time.Parse(time.RFC3339, w.before); err != nil {
		return errors.New("--issued-before must be a time such as 2026-01-31T12:00:00Z")
	}
	return nil
}

// each calls f with each credential that is selected.
func (w *whichCredentials) each(
	ctx context.Context, o *Opened, now time.Time, f func(tokens.LiveCredential) error,
) error {
	before, _ := time.Parse(time.RFC3339, w.before)
	return tokens.LiveCredentials(ctx, o.Store, now, func(v tokens.LiveCredential) error {
		if len(w.kinds) > 0 && !slices.Contains(w.kinds, string(v.Kind)) || w.user != "" && v.User != w.user ||
			w.before != "" && !v.IssueTime.Before(before) {
			return ctx.Err()
		}
		return errors.Join(f(v), ctx.Err())
	})
}

// checked runs the check of a command's own flags before that of the store's.
func checked(cmd *cobra.Command, check func() error) *cobra.Command {
	ready := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if err := check(); err != nil {
			return err
		}
		return ready(cmd, args)
	}
	return cmd
}

func credentialList(c *cli.Command) *cobra.Command {
	var (
		w      whichCredentials
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "list --data-dir DIR",
		Short: "List every credential that works: tokens, services, and sessions of the page",
		Long: `List every credential that works: personal access tokens, service tokens, and sessions of the page, with how many access
tokens and refresh tokens came of each token; these end with it. Tokens of suspended users and blocked ones are among them, for they
work again when that ends. JWTs are in no list: they end by themselves, or with the key that signed them.`,
		Args: cli.Takes(),
	}
	w.flags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, an object a line")
	return checked(keptStoreCommand(c, cmd, func(ctx context.Context, o *Opened, _ []string) error {
		out := bufio.NewWriter(c.Stdout)
		if asJSON {
			lines := json.NewEncoder(out)
			lines.SetEscapeHTML(false)
			err := w.each(ctx, o, c.Now(), func(v tokens.LiveCredential) error { return lines.Encode(v) })
			return errors.Join(err, out.Flush())
		}
		table := cli.NewLongTable(
			out, "KIND", "ID", "USER", "NAME", "ISSUED", "EXPIRES", "STATE", "ACCESS", "REFRESH")
		err := w.each(ctx, o, c.Now(), func(v tokens.LiveCredential) error { return table.Add(credentialRow(v)...) })
		return errors.Join(err, table.Flush(), out.Flush())
	}), w.check)
}

// credentialRow is a line of the list.
func credentialRow(v tokens.LiveCredential) []string {
	expires, state := "never", "works"
	if !v.ExpireTime.IsZero() {
		expires = v.ExpireTime.UTC().Format(time.RFC3339)
	}
	if v.Suspended || v.Blocked {
		state = "suspended or blocked"
	}
	return []string{
		string(v.Kind), v.ID, cli.OrDash(v.User), cli.OrDash(v.Name), v.IssueTime.UTC().Format(time.RFC3339), expires,
		state, strconv.Itoa(v.Access), strconv.Itoa(v.Refresh),
	}
}

func credentialEnd(c *cli.Command) *cobra.Command {
	var (
		w       whichCredentials
		confirm int
		reason  string
		asJSON  bool
	)
	cmd := &cobra.Command{
		Use:   "end --data-dir DIR [--confirm N]",
		Short: "End the credentials that a list selects, for good",
		Long: `End the credentials that ` + "`patd credential list`" + ` shows for the same flags, for good, with what came of them. Without
--confirm it says how many there are, and ends none; with it, it ends them if there are as many, and none that was made since it
counted them. The callers must then be given new ones, the services too. Signed JWTs work until they expire: ` + "`patd keys rotate`" + ` and, later, ` + "`patd keys retire`" + ` end them with their key.`,
		Args: cli.Takes(),
	}
	f := cmd.Flags()
	w.flags(f)
	f.Var((*cli.Count)(&confirm), "confirm", "end them, if there are this many")
	f.Lookup("confirm").DefValue = ""
	f.StringVar(&reason, "reason", "ended by patd credential end", "`text` for the audit log")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return checked(keptStoreCommand(c, cmd, func(ctx context.Context, o *Opened, _ []string) error {
		found, newest := 0, time.Time{}
		err := w.each(ctx, o, c.Now(), func(v tokens.LiveCredential) error {
			if found++; v.IssueTime.After(newest) {
				newest = v.IssueTime
			}
			return nil
		})
		if err != nil {
			return err
		}
		ended := 0
		switch {
		case confirm == 0:
		case confirm != found:
			return fmt.Errorf(
				"there are %d, not %d: nothing was ended; look at them again by `patd credential list`",
				found,
				confirm,
			)
		default:
			if ended, err = w.end(ctx, o, c.Now, reason, newest, found); err != nil {
				return fmt.Errorf("%d of %d were ended: %w", ended, found, err)
			}
		}
		if asJSON {
			return c.JSON(struct {
				Found int `json:"found"`
				Ended int `json:"ended"`
			}{found, ended})
		}
		if confirm == 0 {
			_, err = fmt.Fprintf(
				c.Stdout,
				"%s would end; --confirm %d ends them\n",
				cli.Counted(int64(found), "credential"),
				found,
			)
			return err
		}
		_, err = fmt.Fprintf(c.Stdout, "ended %s\n", cli.Counted(int64(ended), "credential"))
		return err
	}), func() error {
		if strings.TrimSpace(reason) == "" || len(reason) > 1000 {
			return errors.New("--reason must have 1 to 1000 bytes")
		}
		return w.check()
	})
}

var errMadeMeanwhile = errors.New(
	"there are more, made since they were counted; look at them by `patd credential list`")

// end ends what is selected and was counted: at most so many, the newest of which was issued then. It holds no list of
// them, for a store may have more than there is memory for. It returns how many it ended.
func (w *whichCredentials) end(
	ctx context.Context, o *Opened, now func() time.Time, reason string, newest time.Time, most int,
) (int, error) {
	e := ending{store: o.Store, now: now, reason: reason}
	err := w.each(ctx, o, now(), func(v tokens.LiveCredential) error {
		if v.IssueTime.After(newest) {
			return nil
		}
		if most--; most < 0 {
			return errMadeMeanwhile
		}
		return e.add(ctx, v)
	})
	err = errors.Join(err, e.flush(ctx))
	return e.ended, err
}

// ending ends credentials as they are listed, many at once. Flush has to be called at its end.
type ending struct {
	store  tokens.Store
	now    func() time.Time
	reason string
	list   []tokens.LiveCredential
	ended  int
}

// endPage is how many credentials are ended at once.
const endPage = 1000

func (e *ending) add(ctx context.Context, v tokens.LiveCredential) error {
	if e.list = append(e.list, v); len(e.list) < endPage {
		return nil
	}
	return e.flush(ctx)
}

func (e *ending) flush(ctx context.Context) error {
	n, err := tokens.EndCredentials(ctx, e.store, e.list, e.reason, e.now)
	e.ended += n
	e.list = e.list[:0]
	return err
}
