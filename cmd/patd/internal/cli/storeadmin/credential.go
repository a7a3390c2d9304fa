package storeadmin

import (
	"context"
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

// find returns what is selected.
func (w *whichCredentials) find(
	ctx context.Context,
	o *Opened,
	now time.Time,
) (list []tokens.LiveCredential, err error) {
	before, _ := time.Parse(time.RFC3339, w.before)
	err = tokens.LiveCredentials(ctx, o.Store, now, func(v tokens.LiveCredential) error {
		if len(w.kinds) > 0 && !slices.Contains(w.kinds, string(v.Kind)) || w.user != "" && v.User != w.user ||
			w.before != "" && !v.IssueTime.Before(before) {
			return nil
		}
		list = append(list, v)
		return ctx.Err()
	})
	return list, err
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
		list, err := w.find(ctx, o, c.Now())
		if err != nil {
			return err
		}
		if asJSON {
			for _, v := range list {
				if err := c.JSONLine(v); err != nil {
					return err
				}
			}
			return nil
		}
		rows := make([][]string, len(list))
		for i, v := range list {
			expires := "never"
			if !v.ExpireTime.IsZero() {
				expires = v.ExpireTime.UTC().Format(time.RFC3339)
			}
			state := "works"
			if v.Suspended || v.Blocked {
				state = "suspended or blocked"
			}
			rows[i] = []string{
				string(
					v.Kind,
				),
				v.ID,
				cli.OrDash(v.User),
				cli.OrDash(v.Name),
				v.IssueTime.UTC().Format(time.RFC3339),
				expires,
				state,
				strconv.Itoa(v.Access),
				strconv.Itoa(v.Refresh),
			}
		}
		return cli.Table(
			c.Stdout,
			[]string{"KIND", "ID", "USER", "NAME", "ISSUED", "EXPIRES", "STATE", "ACCESS", "REFRESH"},
			rows,
		)
	}), w.check)
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
--confirm it says how many there are, and ends none; with it, it ends them if there are as many. The callers must then be given new
ones, the services too. Signed JWTs work until they expire: ` + "`patd keys rotate`" + ` and, later, ` + "`patd keys retire`" + ` end them with their key.`,
		Args: cli.Takes(),
	}
	f := cmd.Flags()
	w.flags(f)
	f.Var((*cli.Count)(&confirm), "confirm", "end them, if there are this many")
	f.Lookup("confirm").DefValue = ""
	f.StringVar(&reason, "reason", "ended by patd credential end", "`text` for the audit log")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return checked(keptStoreCommand(c, cmd, func(ctx context.Context, o *Opened, _ []string) error {
		list, err := w.find(ctx, o, c.Now())
		if err != nil {
			return err
		}
		ended := 0
		switch {
		case confirm == 0:
		case confirm != len(list):
			return fmt.Errorf(
				"there are %d, not %d: nothing was ended; look at them again by `patd credential list`",
				len(list),
				confirm,
			)
		default:
			if ended, err = tokens.EndCredentials(ctx, o.Store, list, reason, c.Now); err != nil {
				return fmt.Errorf("%d of %d were ended: %w", ended, len(list), err)
			}
		}
		if asJSON {
			return c.JSON(struct {
				Found int `json:"found"`
				Ended int `json:"ended"`
			}{len(list), ended})
		}
		if confirm == 0 {
			_, err = fmt.Fprintf(
				c.Stdout,
				"%s would end; --confirm %d ends them\n",
				cli.Counted(int64(len(list)), "credential"),
				len(list),
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
