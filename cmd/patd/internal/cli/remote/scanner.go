package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"patd/cmd/patd/internal/cli"
	"patd/tokens/secret"
)

// Scanner is the command for secret scanners.
func Scanner(c *cli.Command) *cobra.Command {
	var format string
	var prefixes cli.List
	cmd := &cobra.Command{
		Use:   "scanner-config --format gitleaks|trufflehog|github",
		Short: "Print rules by which a scanner finds secrets of patd in code",
		Long: `Print rules by which a scanner finds secrets of patd in code: personal access tokens, service tokens, access tokens and
refresh tokens.

  gitleaks    a configuration file, for gitleaks --config FILE
  trufflehog  a configuration file with custom detectors, for trufflehog --config FILE
  github      what to write into the form of a custom pattern, one for each kind, as JSON

A scanner looks for the form alone. Of what it finds the checksum in the last six characters is still to be checked, which no
regular expression can; patd does so when a find is reported to POST /v1/leaks, and ends what is a live secret.`,
		Args: cli.Takes(),
	}
	cmd.Flags().StringVar(&format, "format", "", "whose rules: gitleaks, trufflehog or github")
	cmd.Flags().
		Var(&prefixes, "prefix", "personal `prefix` that is or was in use beside pat (see serve --personal-prefix); may be repeated")
	var write func(io.Writer, []scannerRule) error
	cmd.PreRunE = func(*cobra.Command, []string) error {
		switch format {
		case "gitleaks":
			write = gitleaksRules
		case "trufflehog":
			write = trufflehogRules
		case "github":
			write = func(_ io.Writer, rules []scannerRule) error { return githubRules(c, rules) }
		default:
			return errors.New("say whose rules: --format gitleaks, trufflehog or github")
		}
		_, err := secret.NewPrefixes(secret.PrefixPersonal, prefixes...)
		return err
	}
	cmd.RunE = c.Run(func(context.Context, []string) error { return write(c.Stdout, scannerRules(prefixes)) })
	return cmd
}

// scannerRule finds one kind of secret.
type scannerRule struct {
	id, name string
	prefixes []string
}

// scannerRules returns the rules of every kind. Secrets minted under an earlier personal prefix stay good, so scanners
// must look for each prefix that was ever used.
func scannerRules(personal []string) []scannerRule {
	all := []string{secret.PrefixPersonal}
	for _, p := range personal {
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return []scannerRule{
		{"patd-personal-access-token", "patd personal access token", all},
		{"patd-service-token", "patd service token", []string{secret.PrefixService}},
		{"patd-access-token", "patd access token", []string{secret.PrefixAccess}},
		{"patd-refresh-token", "patd refresh token", []string{secret.PrefixRefresh}},
	}
}

// form returns the pattern of a secret, in the syntax that RE2, Hyperscan and PCRE share: prefix, id, secret with
// checksum.
func (r scannerRule) form() string {
	prefix := r.prefixes[0]
	if len(r.prefixes) > 1 {
		prefix = "(?:" + strings.Join(r.prefixes, "|") + ")"
	}
	return prefix + `_[0-9A-Za-z]{11}_[0-9A-Za-z]{49}`
}

// keywords returns the words that a text must contain to be worth matching.
func (r scannerRule) keywords() string {
	var quoted []string
	for _, p := range r.prefixes {
		quoted = append(quoted, `"`+p+`_"`)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// sample returns a secret of the rule's form. It is good for nothing, since it is made of the bytes 1 to 32.
func (r scannerRule) sample(prefix string) (string, error) {
	id, err := secret.ParseID("15ODq7pq8Hy")
	if err != nil {
		return "", fmt.Errorf("make a sample: %w", err)
	}
	raw := make([]byte, 32)
	for i := range raw {
		raw[i] = byte(i + 1)
	}
	s, err := secret.Mint(prefix, id, bytes.NewReader(raw))
	if err != nil {
		return "", fmt.Errorf("make a sample: %w", err)
	}
	return s.Reveal(), nil
}

const scannerRemark = `# Secrets of patd have a fixed form, so that entropy need not be looked at. Their last six characters are a checksum, which
# a rule cannot check: report what is found to POST /v1/leaks, and patd ends what is a live secret.
`

func gitleaksRules(w io.Writer, rules []scannerRule) error {
	var out strings.Builder
	out.WriteString(scannerRemark + "title = \"patd\"\n")
	for _, r := range rules {
		fmt.Fprintf(
			&out,
			"\n[[rules]]\nid = \"%s\"\ndescription = \"%s\"\nregex = '''\\b%s\\b'''\nkeywords = %s\n",
			r.id,
			r.name,
			r.form(),
			r.keywords(),
		)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// trufflehogRules writes rules without a verifier: verifying a find with patd takes a service token, which does not
// belong into a scanner's configuration. Finds are therefore unverified, and shown by --results=unverified.
func trufflehogRules(w io.Writer, rules []scannerRule) error {
	var out strings.Builder
	out.WriteString(
		scannerRemark + "# Without a verifier finds are unverified: run trufflehog with --results=unverified.\ndetectors:\n",
	)
	for _, r := range rules {
		fmt.Fprintf(
			&out,
			"  - name: %s\n    keywords: %s\n    regex:\n      token: '\\b(%s)\\b'\n",
			r.id,
			r.keywords(),
			r.form(),
		)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// githubPattern is a custom pattern, field by field as in GitHub's secret scanning.
type githubPattern struct {
	Name         string   `json:"name"`
	SecretFormat string   `json:"secret_format"`
	BeforeSecret string   `json:"before_secret"`
	AfterSecret  string   `json:"after_secret"`
	TestStrings  []string `json:"test_strings"`
}

func githubRules(c *cli.Command, rules []scannerRule) error {
	var patterns []githubPattern
	for _, r := range rules {
		//nolint:gosec // G101: it finds secrets, and is none
		p := githubPattern{
			Name:         r.name,
			SecretFormat: r.form(),
			BeforeSecret: `\A|[^0-9A-Za-z_]`,
			AfterSecret:  `\z|[^0-9A-Za-z_]`,
		}
		for _, prefix := range r.prefixes {
			s, err := r.sample(prefix)
			if err != nil {
				return err
			}
			p.TestStrings = append(p.TestStrings, s)
		}
		patterns = append(patterns, p)
	}
	return c.JSON(map[string][]githubPattern{"patterns": patterns})
}
