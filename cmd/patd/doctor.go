package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/cmd/patd/internal/cli/storeadmin"
	"patd/server/signin"
	"patd/store"
	"patd/tokens"
)

// The levels of a finding.
const (
	levelOK      = "ok"
	levelWarning = "warning"
	levelProblem = "problem"
)

// exitWarnings is the exit code when there are warnings and no problem.
const exitWarnings = 3

// finding is what one look showed, and what to do about it.
type finding struct {
	Check string `json:"check"`
	Level string `json:"level"`
	Found string `json:"found"`
	Do    string `json:"do,omitempty"`
}

// doctor looks at all that a server needs, and changes nothing of it.
type doctor struct {
	c     *cli.Command
	s     *config.Settings
	log   *slog.Logger
	found []finding
}

func doctorCommand(c *cli.Command) *cobra.Command {
	var s config.Settings
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor --data-dir DIR",
		Short: "Look at all that a server needs, and say what to do",
		Long: `Look at all that a server with these settings needs: configuration, files and their modes, clock, database (version, pooler,
replication, whether it puts changes on disk), keys, sign-in provider, source of features, and the versions of all servers on the
store. Give it the settings of ` + "`patd serve`" + `; it runs beside the server, opens no port and changes nothing.

Each finding is ok, a warning or a problem, and says what to do. The exit code is 0 when all is well, 3 when there are warnings and 1
when there is a problem. No secret is printed.`,
		Args: cli.Takes(),
	}
	f := cmd.Flags()
	s.ServeFlags(f)
	f.BoolVar(&asJSON, "json", false, "print JSON")
	d := &doctor{c: c, s: &s}
	var broken []error
	cmd.PreRunE = func(*cobra.Command, []string) (err error) {
		if _, err = config.PlaceOf(c, &s); err != nil {
			return err
		}
		d.log = slog.New(slog.DiscardHandler) // what it finds it prints itself
		_, policy := s.Policy(f.Changed("default-ttl"))
		broken = []error{
			refusePlainText(
				&s,
			),
			policy,
			s.Source.Read(c, f),
			s.SignIn.Read(c, f, &s.Page),
			s.Provisioning.Read(c, f, &s.SignIn),
		}
		return nil
	}
	cmd.RunE = c.Run(func(ctx context.Context, _ []string) error {
		d.configuration(broken)
		d.files()
		d.clock()
		d.onStore(ctx)
		if errors.Join(broken...) == nil {
			d.provider(ctx)
			d.source(ctx)
		}
		return d.report(asJSON)
	})
	return cmd
}

func (d *doctor) add(check, level, do, format string, of ...any) {
	d.found = append(d.found, finding{check, level, cli.Redact(fmt.Sprintf(format, of...)), do})
}

func (d *doctor) ok(check, format string, of ...any) { d.add(check, levelOK, "", format, of...) }

func (d *doctor) report(asJSON bool) error {
	warnings, problems := 0, 0
	for _, f := range d.found {
		switch f.Level {
		case levelWarning:
			warnings++
		case levelProblem:
			problems++
		}
	}
	var err error
	if asJSON {
		err = d.c.JSON(struct {
			OK       bool      `json:"ok"`
			Warnings int       `json:"warnings"`
			Problems int       `json:"problems"`
			Findings []finding `json:"findings"`
		}{problems == 0, warnings, problems, d.found})
	} else {
		rows := make([][]string, len(d.found))
		for i, f := range d.found {
			rows[i] = []string{f.Level, f.Check, f.Found, cli.OrDash(f.Do)}
		}
		err = cli.Table(d.c.Stdout, []string{"LEVEL", "CHECK", "FOUND", "WHAT TO DO"}, rows)
	}
	switch {
	case err != nil:
		return err
	case problems > 0:
		return fmt.Errorf("%s, %s", cli.Counted(int64(problems), "problem"), cli.Counted(int64(warnings), "warning"))
	case warnings > 0:
		return &cli.ExitError{Code: exitWarnings, Cause: errors.New(cli.Counted(int64(warnings), "warning"))}
	}
	return nil
}

func (d *doctor) configuration(broken []error) {
	well := true
	for _, err := range broken {
		if err != nil {
			well = false
			d.add("configuration", levelProblem, "correct the setting; the server does not start with it", "%v", err)
		}
	}
	if well {
		d.ok("configuration", "the settings are good")
	}
	if d.c.Config == "" {
		return
	}
	info, err := os.Stat(d.c.Config)
	switch {
	case err != nil:
		d.add("configuration", levelProblem, "make the file readable for this user", "%v", err)
	case info.Mode().Perm()&0o022 != 0:
		d.add("configuration", levelProblem, "chmod 640 "+d.c.Config, "others than its owner can change %s", d.c.Config)
	case info.Mode().Perm()&0o004 != 0 && d.s.DatabaseURL.Reveal() != "" && strings.Contains(d.s.DatabaseURL.Reveal(), ":") && hasPassword(d.s.DatabaseURL.Reveal()):
		d.add(
			"configuration",
			levelProblem,
			"chmod 640 "+d.c.Config,
			"everybody on this machine can read %s, and there is a password in it",
			d.c.Config,
		)
	}
}

// hasPassword reports whether a URL has one.
func hasPassword(text string) bool {
	_, rest, ok := strings.Cut(text, "://")
	who, _, at := strings.Cut(rest, "@")
	return ok && at && strings.Contains(who, ":")
}

// files looks at the store's file, the keys and their directories.
func (d *doctor) files() {
	p, err := config.PlaceOf(d.c, d.s)
	if err != nil {
		return
	}
	for _, one := range []struct{ what, path string }{{"store", p.Database}, {"hash key", string(p.Keys)}} {
		if one.path == "" {
			continue
		}
		info, err := os.Stat(one.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			d.add(
				"files",
				levelProblem,
				"name the directory of the store by --data-dir; the first start of a server makes a new one",
				"there is no %s, %s",
				one.what,
				one.path,
			)
		case err != nil:
			d.add("files", levelProblem, "run this as the user that the server runs as", "%v", err)
		case info.Mode().Perm()&0o077 != 0:
			d.add(
				"files",
				levelProblem,
				"chmod 600 "+one.path,
				"others than its owner can read the %s, %s (mode %04o)",
				one.what,
				one.path,
				info.Mode().Perm(),
			)
		default:
			d.ok("files", "%s: mode %04o", one.path, info.Mode().Perm())
		}
	}
	for _, dir := range p.WritableByOthers() {
		d.add(
			"files",
			levelProblem,
			"chmod 700 "+dir,
			"others than its owner can write to %s, and so replace the store or its key",
			dir,
		)
	}
	if p.Database != "" && p.Keys != "" && filepath.Dir(p.Database) == filepath.Dir(string(p.Keys)) {
		d.ok("files", "the key is beside the store: keep a copy of it in another place than the backups")
	}
	d.certificate()
}

func (d *doctor) certificate() {
	if d.s.TLSCert == "" && d.s.TLSKey == "" {
		return
	}
	files, err := certificate(d.s, d.log)
	if err != nil {
		d.add("TLS", levelProblem, "see that --tls-cert and --tls-key are a pair that this user can read", "%v", err)
		return
	}
	if left := certificateEnd(files.TLS()).Sub(d.c.Now()); left <= storeadmin.ExpiryNotice {
		d.add(
			"TLS",
			levelWarning,
			"renew the certificate; the server notices the new files",
			"the certificate ends in %s",
			tokens.FormatDuration(max(left, 0).Truncate(time.Second)),
		)
		return
	}
	d.ok("TLS", "the certificate and its key are a pair")
}

func (d *doctor) onStore(ctx context.Context) {
	p, err := config.PlaceOf(d.c, d.s)
	if err != nil {
		return
	}
	if !p.Remote() && p.Kept(d.s) != nil {
		return // files said so
	}
	o, err := storeadmin.Open(ctx, d.c, d.s, d.log)
	if err != nil {
		d.add("store", levelProblem, "the server does not start before this is mended", "%v", err)
		return
	}
	defer func() { _ = o.Close() }()
	if !o.RowsSealed() {
		d.add(
			"store",
			levelWarning,
			"when every server is of this version, run `"+store.SealRows+"`",
			"rows that are edited in the database are believed",
		)
	}
	ends, err := storeadmin.ReadEndings(ctx, o.Store, d.c.Now())
	if err != nil {
		d.add("services", levelProblem, "run `patd check`", "%v", err)
	}
	for _, text := range ends.Warnings(d.c.Now()) {
		d.add("services", levelWarning, "patd service rotate NAME", "%s", text)
	}
	at, err := o.Diagnose(ctx)
	if err != nil {
		d.add("database", levelProblem, "see the database's log", "%v", err)
		return
	}
	if o.Place.Remote() {
		d.postgres(at)
	} else {
		d.sqlite(at, o.Place.Database)
	}
	d.versions(at)
	if ahead := at.Event.Sub(d.c.Now()); ahead > time.Second {
		d.add(
			"clock",
			levelProblem,
			"synchronize the clocks of all servers (NTP)",
			"the newest event is %s in the future of this clock",
			ahead.Round(time.Millisecond),
		)
	}
}

func (d *doctor) versions(at store.Diagnosis) {
	switch {
	case at.Schema < at.Newest:
		d.add(
			"versions",
			levelWarning,
			"patd migrate",
			"the schema is version %d, and this patd makes version %d",
			at.Schema,
			at.Newest,
		)
	case at.Schema > at.Newest:
		d.add(
			"versions",
			levelWarning,
			"upgrade this patd to the version of the others",
			"the schema is version %d, and this patd knows version %d",
			at.Schema,
			at.Newest,
		)
	default:
		d.ok("versions", "schema %d, patd %s", at.Schema, d.c.Version)
	}
	var seen []string
	for _, one := range at.Servers {
		version := one.Version
		if version == "" {
			version = "of an earlier version"
		}
		if !slices.Contains(seen, version) {
			seen = append(seen, version)
		}
		d.ok(
			"versions",
			"patd %s at %s, %s, since %s",
			version,
			one.Address,
			cli.Counted(int64(one.Connections), "connection"),
			one.Since.UTC().Format(time.RFC3339),
		)
	}
	for _, one := range at.Members {
		d.ok("versions", "server %s, patd %s, since %s", one.Name, one.Version, one.Since.UTC().Format(time.RFC3339))
	}
	if len(seen) > 1 {
		d.add(
			"versions",
			levelWarning,
			"end the upgrade: replace the servers of the earlier version",
			"servers of %d versions are connected: %s",
			len(seen),
			strings.Join(seen, ", "),
		)
	}
	for _, schema := range sortedKeys(at.Writers) {
		if last := at.Writers[schema]; schema != 0 && schema < at.Newest && d.c.Now().Sub(last) < 10*time.Minute {
			d.add(
				"versions",
				levelWarning,
				"replace the servers of the earlier version",
				"a program that knows schema %d wrote an event at %s",
				schema,
				last.UTC().Format(time.RFC3339),
			)
		}
	}
}

func sortedKeys[V any](m map[int64]V) []int64 {
	keys := make([]int64, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// provider fetches the keys of each issuer.
func (d *doctor) provider(ctx context.Context) {
	users, err := d.s.SignIn.Open(d.log)
	if err != nil {
		d.add("provider", levelProblem, "correct the settings of --oidc-issuer", "%v", err)
		return
	}
	if users == nil {
		return
	}
	defer users.Close()
	users.Start()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(15 * time.Second); issuersIn(users, signin.StatusUnknown) > 0 && time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	for _, issuer := range slices.Sorted(maps.Keys(users.Statuses())) {
		switch users.Statuses()[issuer] {
		case signin.StatusGood:
			d.ok("provider", "the keys of %s were fetched", issuer)
		case signin.StatusMisconfigured:
			d.add(
				"provider",
				levelProblem,
				"see that --oidc-issuer is spelt as the provider's discovery document spells it",
				"%s says of itself something else than the configuration",
				issuer,
			)
		default:
			d.add(
				"provider",
				levelProblem,
				"see that this machine reaches it, and trusts its certificate",
				"%s does not answer, or not correctly",
				issuer,
			)
		}
	}
}

// source asks for the features of a user that does not exist.
func (d *doctor) source(ctx context.Context) {
	source, release, err := openFeatureSource(ctx, &d.s.Source, d.log)
	if err != nil {
		d.add("features", levelProblem, "correct the settings of --features-source", "%v", err)
		return
	}
	defer func() { _ = release.Close() }()
	if source == nil || source.Local() {
		return
	}
	began := time.Now()
	held, err := source.Features(ctx, tokens.User{ID: "patd-doctor"}, true)
	switch {
	case err != nil:
		var e *tokens.Error
		if errors.As(err, &e) && e.Cause != nil {
			err = e.Cause
		}
		d.add(
			"features",
			levelProblem,
			"see that this machine reaches the source; introspection is 503 without it",
			"the source does not answer: %v",
			err,
		)
	case held.AsGranted:
	case len(held.Features) > 0:
		d.add(
			"features",
			levelWarning,
			"see the query or the callback: a user that does not exist should have none",
			"the user patd-doctor, who does not exist, has %s",
			cli.Counted(int64(len(held.Features)), "feature"),
		)
	default:
		d.ok("features", "the source answered in %s", time.Since(began).Round(time.Millisecond))
	}
}
