package storeadmin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/tokens"
	"patd/tokens/secret"
)

// Keys is the command that manages the digest keys.
func Keys(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Rotate and retire the digest keys, on the store itself",
		Long: `Rotate and retire the digest keys, on the store itself, the server running or not.

Rotating adds a fresh key as the current one. A token's digest moves to it when the token is next seen; when no live
digest is left under the old key, it can be retired and leaves the key file. The checksums of rows move when it is retired.

Where several servers share a store, each with a copy of the key file: prepare a key, copy the file to every server, rotate, and
copy it again. So no server reads a digest under a key that it does not have.`,
	}
	return c.Group(cmd, keysPrepare(c), keysRotate(c), keysStatus(c), keysRetire(c))
}

func keysPrepare(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prepare --data-dir DIR",
		Short: "Put a fresh key into the key file that the next rotation makes current",
		Args:  cli.Takes(),
	}
	return storeCommand(c, cmd, func(ctx context.Context, o *Opened, _ []string) error {
		return o.changeKeys(ctx, func(text string, keys *tokens.Keys, known []tokens.KeyRecord) (string, error) {
			if name := prepared(keys, known); name != "" {
				return "", fmt.Errorf("key %s is prepared already; `patd keys rotate` makes it current", name)
			}
			name := nextKeyName(keys, known)
			line, err := secret.NewKeyLine(name, rand.Reader)
			if err != nil {
				return "", err
			}
			if err := o.Place.Keys.Replace(strings.TrimRight(text, "\n") + "\n" + line.Reveal() + "\n"); err != nil {
				return "", err
			}
			fmt.Fprintf(
				c.Stderr,
				"patd: %s is in %s, and not in use yet; copy the file to every server on this store, then run `patd keys rotate` and copy it again\n",
				name,
				o.Place.Keys,
			)
			return name, nil
		}, c)
	})
}

// prepared returns the key of a file that is newer than the current one; empty: there is none.
func prepared(keys *tokens.Keys, known []tokens.KeyRecord) string {
	place := func(name string) int {
		return slices.IndexFunc(known, func(k tokens.KeyRecord) bool { return k.Name == name })
	}
	current := place(keys.Current())
	for _, name := range keys.Names()[1:] {
		if at := place(name); at < 0 || current >= 0 && at > current && known[at].RetireTime.IsZero() {
			return name
		}
	}
	return ""
}

func keysRotate(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate --data-dir DIR",
		Short: "Make a fresh key, or the prepared one, the current one",
		Args:  cli.Takes(),
	}
	return storeCommand(c, cmd, func(ctx context.Context, o *Opened, _ []string) error {
		return o.changeKeys(ctx, func(text string, keys *tokens.Keys, known []tokens.KeyRecord) (string, error) {
			first, err := nextKeyLine(c, text, keys, known)
			if err != nil {
				return "", err
			}
			text = first + config.Without(text, prepared(keys, known))
			// The file comes first: if the store knew a key that no file has, it could not be opened. A process that
			// reads the file in between adds the key to the store before using it.
			if err := o.Place.Keys.Replace(text); err != nil {
				return "", err
			}
			if keys, err = o.Place.Keys.Read(); err != nil {
				return "", err
			}
			o.Keys = keys
			if err := o.bind(ctx, "", c.Now()); err != nil {
				return "", fmt.Errorf(
					"the fresh key is in %s, but not in the store yet, which the next start or rotation mends: %w",
					o.Place.Keys,
					err,
				)
			}
			fmt.Fprintf(
				c.Stderr,
				"patd: %s is the current key; a running server takes it up within a few seconds; keep a copy of %s\n",
				keys.Current(),
				o.Place.Keys,
			)
			return keys.Current(), nil
		}, c)
	})
}

// nextKeyLine returns the line of the prepared key, or of a fresh one.
func nextKeyLine(_ *cli.Command, text string, keys *tokens.Keys, known []tokens.KeyRecord) (string, error) {
	if name := prepared(keys, known); name != "" {
		for line := range strings.Lines(text) {
			if id, _, _ := strings.Cut(strings.TrimSpace(line), ":"); id == name {
				return strings.TrimRight(line, "\n") + "\n", nil
			}
		}
	}
	line, err := secret.NewKeyLine(nextKeyName(keys, known), rand.Reader)
	if err != nil {
		return "", err
	}
	return line.Reveal() + "\n", nil
}

func keysRetire(c *cli.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: "retire KEY --data-dir DIR", Args: cli.Takes("KEY"),
		Short: "Take a key that no live token needs out of the store and the key file",
	}
	return storeCommand(c, cmd, func(ctx context.Context, o *Opened, args []string) error {
		return o.changeKeys(ctx, func(text string, keys *tokens.Keys, known []tokens.KeyRecord) (string, error) {
			name := args[0]
			if !slices.ContainsFunc(known, func(k tokens.KeyRecord) bool { return k.Name == name }) {
				return "", errors.New("the store knows no such key; see `patd keys status`")
			}
			if name == keys.Current() {
				return "", fmt.Errorf("key %s is the current one; rotate first", name)
			}
			// The store comes first, for the same reason that the file comes first in a rotation.
			if err := tokens.RetireKey(ctx, o.Store, keys, name, c.Now()); err != nil {
				return "", err
			}
			if rest := config.Without(text, name); rest != text {
				if err := o.Place.Keys.Replace(rest); err != nil {
					return "", err
				}
			}
			fmt.Fprintf(
				c.Stderr,
				"patd: key %s is retired and no longer in %s; backups made before now still need it: keep its line with them\n",
				name,
				o.Place.Keys,
			)
			return name, nil
		}, c)
	})
}

// changeKeys changes the key file under its lock, and prints the name of the key that change returns.
func (o *Opened) changeKeys(
	ctx context.Context,
	change func(text string, keys *tokens.Keys, known []tokens.KeyRecord) (string, error),
	c *cli.Command,
) error {
	if o.Place.Keys == "" {
		return fmt.Errorf(
			"the keys are in %s, which this command cannot change: put a fresh line `keyid:64 hex digits` first in it, or take the retired one out, and restart",
			config.HashKeyVariable,
		)
	}
	unlock, err := o.Place.Keys.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	text, err := o.Place.Keys.Text()
	if err != nil {
		return err
	}
	keys, err := o.Place.Keys.Read()
	if err != nil {
		return err
	}
	known, err := o.knownKeys(ctx)
	if err != nil {
		return err
	}
	name, err := change(text, keys, known)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.Stdout, name)
	return err
}

// knownKeys lists the keys that the store knows.
func (o *Opened) knownKeys(ctx context.Context) (known []tokens.KeyRecord, err error) {
	err = o.View(ctx, func(tx tokens.ReadTx) (err error) {
		known, err = tx.Keys()
		return err
	})
	return known, err
}

// nextKeyName returns a name that neither the file nor the store has used: k2 after k1.
func nextKeyName(keys *tokens.Keys, known []tokens.KeyRecord) string {
	names := keys.Names()
	for _, k := range known {
		names = append(names, k.Name)
	}
	last := 0
	for _, name := range names {
		if n, err := strconv.Atoi(strings.TrimPrefix(name, "k")); err == nil && name == config.KeyName(n) {
			last = max(last, n)
		}
	}
	return config.KeyName(last + 1)
}

// keyStatus is one key of a store, as printed.
type keyStatus struct {
	Key         string `json:"key"`
	Current     bool   `json:"current"`
	Prepared    bool   `json:"prepared"` // current after the next rotation
	InFile      bool   `json:"in_file"`
	CreateTime  string `json:"create_time"`
	LiveDigests int64  `json:"live_digests"`
	RetireTime  string `json:"retire_time,omitempty"`
}

func keysStatus(c *cli.Command) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status --data-dir DIR",
		Short: "List the keys, oldest first, and how many live tokens need each",
		Args:  cli.Takes(),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return storeCommand(c, cmd, func(ctx context.Context, o *Opened, _ []string) error {
		all, err := o.keyStatus(ctx, c.Now())
		if err != nil {
			return err
		}
		if asJSON {
			return c.JSON(map[string][]keyStatus{"keys": all})
		}
		var rows [][]string
		for _, k := range all {
			state := "old"
			switch {
			case k.Current:
				state = "current"
			case k.Prepared:
				state = "prepared"
			case k.RetireTime != "":
				state = "retired"
			}
			rows = append(
				rows,
				[]string{k.Key, state, strconv.FormatInt(k.LiveDigests, 10), k.CreateTime, cli.OrDash(k.RetireTime)},
			)
		}
		return cli.Table(c.Stdout, []string{"KEY", "STATE", "LIVE DIGESTS", "CREATED", "RETIRED"}, rows)
	})
}

func (o *Opened) keyStatus(ctx context.Context, now time.Time) ([]keyStatus, error) {
	var all []keyStatus
	err := o.View(ctx, func(tx tokens.ReadTx) error {
		known, err := tx.Keys()
		if err != nil {
			return err
		}
		use, err := tx.KeyUse(now)
		if err != nil {
			return err
		}
		all = make([]keyStatus, 0, len(known))
		for _, k := range known {
			s := keyStatus{
				Key:         k.Name,
				Current:     k.Name == o.Keys.Current(),
				Prepared:    k.Name == prepared(o.Keys, known),
				InFile:      slices.Contains(o.Keys.Names(), k.Name),
				CreateTime:  k.CreateTime.UTC().Format(time.RFC3339),
				LiveDigests: use[k.Name],
			}
			if !k.RetireTime.IsZero() {
				s.RetireTime = k.RetireTime.UTC().Format(time.RFC3339)
			}
			all = append(all, s)
		}
		return nil
	})
	return all, err
}
