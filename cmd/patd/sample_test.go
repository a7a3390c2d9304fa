package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"patd/cmd/patd/internal/cli/config"
	"patd/cmd/patd/internal/cli/remote"
)

var update = flag.Bool("update", false, "write deploy/patd.yaml anew")

const samplePath = "../../deploy/patd.yaml"

// sample is a configuration file with every setting, its meaning and its default, in the groups of the flags. Only the
// data directory is set: everything else is a comment.
func sample(t *testing.T) string {
	t.Helper()
	var s config.Settings
	groups := []struct {
		title string
		flags func(*pflag.FlagSet)
	}{
		{"The store and its key", s.StoreFlags},
		{"PostgreSQL", s.DatabaseFlags},
		{"Listening, proxies, stopping", s.ListenFlags},
		{"TLS", s.TLSFlags},
		{"Lifetimes and limits of tokens", s.PolicyFlags},
		{"Notices before an end, and of tokens that are not used (docs/renewing.md)", s.Notices.Flags},
		{"Cache", s.CacheFlags},
		{"Old events and the disk", s.UpkeepFlags},
		{"Where features come from (docs/features.md)", s.Source.Flags},
		{"Users who sign in (docs/signin.md)", s.SignIn.Flags},
		{"Users who leave: SCIM and security events (docs/offboarding.md)", s.Provisioning.Flags},
		{"The page where users make tokens (docs/page.md)", s.Page.Flags},
		{"Rate limits", s.Rates.Flags},
		{"Reports of leaked tokens (docs/leaks.md)", s.Leaks.Flags},
		{"Webhooks (docs/webhooks.md)", s.Webhooks.Flags},
		{"Traces (docs/traces.md)", s.TraceFlags},
		{"Log", func(f *pflag.FlagSet) { s.LogFlags(f, "info", "json") }},
		{"For the commands that call a running server: token, user, service list, …", remote.ConnectionFlags},
	}
	var text strings.Builder
	text.WriteString(
		`# Every setting of patd. A line that is commented out shows the default; the type stands where there is none.
#
# patd reads this file with --config FILE or PATD_CONFIG. A flag (--http-addr) overrides its variable (PATD_HTTP_ADDR), which
# overrides this file (http-addr). Unknown keys are errors. Durations are 90s, 12h, 180d; sizes 256MiB. Secrets do not belong
# here: settings that end in -file name files that hold them.
#
# Made from the flags: go test ./cmd/patd -run TestSampleConfiguration -update
`,
	)
	all, left, written := config.AllSettings(remote.ConnectionFlags), map[string]bool{}, map[string]bool{}
	all.VisitAll(func(f *pflag.Flag) { left[f.Name] = true })
	for _, g := range groups {
		set := pflag.NewFlagSet("group", pflag.ContinueOnError)
		set.SortFlags = false
		g.flags(set)
		fmt.Fprintf(&text, "\n# --- %s\n", g.title)
		set.VisitAll(func(f *pflag.Flag) {
			if written[f.Name] { // --insecure is one key for the server and for those who call it
				return
			}
			delete(left, f.Name)
			written[f.Name] = true
			f = all.Lookup(f.Name)
			kind, usage := pflag.UnquoteUsage(f)
			text.WriteString("\n" + commented(usage))
			switch {
			case f.Name == "data-dir":
				text.WriteString("data-dir: /var/lib/patd\n")
			case f.DefValue == "" || f.DefValue == "[]":
				kind = "<" + kind + ">"
				if f.Value.Type() == "stringArray" {
					kind = "[" + kind + "]"
				}
				fmt.Fprintf(&text, "#%s: %s\n", f.Name, kind)
			default:
				fmt.Fprintf(&text, "#%s: %s\n", f.Name, scalar(f))
			}
		})
	}
	for name := range left {
		t.Errorf("--%s is in no group of this test", name)
	}
	return text.String()
}

// scalar is a flag's default as the file spells it.
func scalar(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool", "int", "rate":
		return f.DefValue
	}
	return fmt.Sprintf("%q", f.DefValue)
}

// commented breaks a text into lines of comments.
func commented(text string) string {
	var lines strings.Builder
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 118 {
			lines.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	return lines.String() + line + "\n"
}

// TestSampleConfigurationHasEverySettingAndItsDefault compares deploy/patd.yaml with the flags, and reads it as patd
// does: as it stands, and with every default in it no longer a comment, which must change nothing.
func TestSampleConfigurationHasEverySettingAndItsDefault(t *testing.T) {
	want := sample(t)
	if *update {
		if err := os.WriteFile(samplePath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(samplePath)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf(
			"deploy/patd.yaml is not what the flags say: run go test ./cmd/patd -run TestSampleConfiguration -update, and commit it",
		)
	}
	defaults := regexp.MustCompile(`(?m)^#([a-z-]+: [^<\n]*)$`)
	settings, uncommented := string(got), 0
	settings = defaults.ReplaceAllStringFunc(settings, func(line string) string { uncommented++; return line[1:] })
	if uncommented < 30 {
		t.Errorf("only %d defaults are in the file", uncommented)
	}
	for _, text := range []string{string(got), settings} {
		fresh := config.AllSettings(remote.ConnectionFlags)
		if err := config.FromFile(fresh, []byte(text), config.AllSettings(remote.ConnectionFlags)); err != nil {
			t.Fatalf("patd does not read it: %v", err)
		}
		fresh.VisitAll(func(f *pflag.Flag) {
			value := f.Value.String()
			if f.Name == "data-dir" && value == "/var/lib/patd" {
				return
			}
			if value != f.DefValue {
				t.Errorf("the file sets %s to %s, and the default is %s", f.Name, value, f.DefValue)
			}
		})
	}
}
