package config

import (
	"github.com/spf13/pflag"

	"patd/server"
)

// leakSettings say how reports of GitHub about leaked secrets are verified.
type leakSettings struct {
	keysURL, caFile string
}

// Flags adds their flags.
func (s *leakSettings) Flags(f *pflag.FlagSet) {
	f.StringVar(
		&s.keysURL,
		"github-leak-keys-url",
		server.DefaultGitHubKeysURL,
		"`URL` of the keys that sign GitHub's reports of leaked tokens, https off this machine; empty: its reports are not taken",
	)
	f.StringVar(
		&s.caFile,
		"github-leak-ca-file",
		"",
		"PEM `file` of the authorities to trust with --github-leak-keys-url, instead of the system's",
	)
}

// Server returns the settings as the server takes them.
func (s *leakSettings) Server() server.GitHubLeaks {
	return server.GitHubLeaks{KeysURL: s.keysURL, CAFile: s.caFile}
}
