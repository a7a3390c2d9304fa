package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"patd/internal/longtest"
	"patd/tokens/secret"
)

// freshSecret makes a secret under a prefix.
func freshSecret(t *testing.T, prefix string) string {
	t.Helper()
	id, err := secret.NewID(time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := secret.Mint(prefix, id, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s.Reveal()
}

// lookAlikes are texts that are no secrets of patd, made out of one.
func lookAlikes(t *testing.T) []string {
	t.Helper()
	s := freshSecret(t, "pat")
	id, tail := s[4:15], s[16:]
	return []string{
		s[:len(s)-1],
		s + "x",
		"pat_" + id + "x_" + tail,
		"pat_" + id[1:] + "_" + tail,
		"pat-" + id + "-" + tail,
		"pat_" + id + "-" + tail,
		"pat_" + id + tail,
		"pat_" + id + "_" + tail[:20] + "-" + tail[21:],
		"pat_" + id + "_" + tail[:20] + "_" + tail[21:],
		"pat_" + id + "_" + tail[:20] + " " + tail[20:],
		"patx_" + id + "_" + tail,
		"xpat_" + id + "_" + tail,
		"PAT_" + id + "_" + tail,
		"Pats_" + id + "_" + tail,
		"acme2_" + id + "_" + tail,
		"_" + id + "_" + tail,
		"github_pat_" + id + strings.Repeat(
			"A",
			11,
		) + "_" + tail + strings.Repeat(
			"b",
			10,
		),
		"pat_",
		"pats_" + id,
		"pat_xxxxxxxxxxx_" + strings.Repeat("*", 49),
	}
}

// found is what gitleaks tells of a find.
type found struct {
	Rule   string `json:"RuleID"`
	File   string
	Secret string
}

// gitleaks runs the real scanner over a folder. It is built from the version that tools.mod pins.
func gitleaks(t *testing.T, config, dir string) []found {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.json")
	ctx, cancel := context.WithTimeout(context.Background(), 9*time.Minute) // the first build takes a while
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "tool", "-modfile=tools.mod", "gitleaks", "dir", dir, "--config", config,
		"--report-format", "json", "--report-path", report, "--no-banner", "--redact=0", "--exit-code", "7")
	cmd.Dir = "../.."
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 7) {
		t.Fatalf("gitleaks: %v\n%s", err, out)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var all []found
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for i := range all {
		if all[i].File, err = filepath.Rel(dir, all[i].File); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(all, func(a, b found) int { return strings.Compare(a.File+a.Secret, b.File+b.Secret) })
	return all
}

// TestGitleaksFindsSecretsOfPatdAndNothingElse runs it over a tree as there are many: secrets in code, in settings, in
// addresses, in a row, and texts that look like them.
func TestGitleaksFindsSecretsOfPatdAndNothingElse(t *testing.T) {
	longtest.Slow(t)
	dir, config := t.TempDir(), filepath.Join(t.TempDir(), "gitleaks.toml")
	rules := patd(t, "scanner-config", "--format", "gitleaks", "--prefix", "acme")
	write(t, config, rules)
	var want []found
	for prefix, rule := range map[string]string{
		"pat": "patd-personal-access-token", "acme": "patd-personal-access-token", "pats": "patd-service-token", "pata": "patd-access-token", "patr": "patd-refresh-token",
	} {
		for name, frame := range map[string]string{
			"main.go": "const token = \"@\"\n", ".env": "TOKEN=@\nOTHER=1\n", "settings.yaml": "a:\n  b: '@' # rotate\n", "line.txt": "@", "curl.sh": "curl -H 'Authorization: Bearer @'\n",
			"url.md": "https://user:@@host.example/x?token=@&y=1\n", "row.csv": "@,@\n@;@\n", "markup.html": "<b>@</b>", "file.json": `{"k":"@","l":["@"]}`, "dash": "x-@-y.@.",
		} {
			text := ""
			for i, part := range strings.Split(frame, "@") {
				// Where two stand side by side, the second is an @ of the frame.
				if i > 0 && !(name == "url.md" && i == 2) {
					s := freshSecret(t, prefix)
					text += s
					want = append(want, found{rule, filepath.Join("src", prefix, name), s})
				} else if i > 0 {
					text += "@"
				}
				text += part
			}
			write(t, filepath.Join(dir, "src", prefix, name), text)
		}
	}
	for _, s := range lookAlikes(t) {
		write(
			t,
			filepath.Join(dir, "alike", regexp.MustCompile(`[^0-9A-Za-z]`).ReplaceAllString(s, "+")),
			"a = \""+s+"\"\n"+s+"\n<"+s+">\n",
		)
	}
	slices.SortFunc(want, func(a, b found) int { return strings.Compare(a.File+a.Secret, b.File+b.Secret) })
	if diff := cmp.Diff(want, gitleaks(t, config, dir)); diff != "" {
		t.Errorf("the secrets there are, and those that it finds: %s", diff)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestOtherScannersFindTheSame reads the other two formats as their programs do, as far as Go's regular expressions go.
func TestOtherScannersFindTheSame(t *testing.T) {
	var hog struct {
		Detectors []struct {
			Name     string
			Keywords []string
			Regex    map[string]string
		}
	}
	dec := yaml.NewDecoder(
		bytes.NewReader([]byte(patd(t, "scanner-config", "--format", "trufflehog", "--prefix", "acme"))),
	)
	dec.KnownFields(true)
	if err := dec.Decode(&hog); err != nil {
		t.Fatal(err)
	}
	var hub struct {
		Patterns []struct {
			Name         string
			SecretFormat string   `json:"secret_format"`
			BeforeSecret string   `json:"before_secret"`
			AfterSecret  string   `json:"after_secret"`
			TestStrings  []string `json:"test_strings"`
		}
	}
	if err := json.Unmarshal(
		[]byte(patd(t, "scanner-config", "--format", "github", "--prefix", "acme")),
		&hub,
	); err != nil {
		t.Fatal(err)
	}
	var hogs, hubs []*regexp.Regexp
	for _, d := range hog.Detectors {
		hogs = append(hogs, regexp.MustCompile(d.Regex["token"]))
	}
	for _, p := range hub.Patterns {
		re := regexp.MustCompile("(?:" + p.BeforeSecret + ")(" + p.SecretFormat + ")(?:" + p.AfterSecret + ")")
		hubs = append(hubs, re)
		for _, s := range p.TestStrings {
			if !re.MatchString(s) {
				t.Errorf("%s does not find its own test string", p.Name)
			}
		}
	}
	for _, all := range [][]*regexp.Regexp{hogs, hubs} {
		finds := func(text string) (n int, secret string) {
			for _, re := range all {
				if m := re.FindStringSubmatch(text); m != nil {
					n, secret = n+1, m[1]
				}
			}
			return n, secret
		}
		for _, prefix := range []string{"pat", "acme", "pats", "pata", "patr"} {
			s := freshSecret(t, prefix)
			if n, got := finds("x = \"" + s + "\"\n"); n != 1 || got != s {
				t.Errorf("%d rules find a secret under %s", n, prefix)
			}
		}
		for _, s := range lookAlikes(t) {
			if n, _ := finds("x = \"" + s + "\"\n"); n != 0 {
				t.Errorf("%q is found", s)
			}
		}
	}
}
