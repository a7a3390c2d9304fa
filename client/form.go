package client

import (
	"fmt"
	"slices"
	"strings"

	"patd/tokens/secret"
)

// form recognizes text that can be a token that patd introspects.
type form struct{ prefixes []string }

func newForm(prefixes []string) (form, error) {
	for _, p := range prefixes {
		if p == secret.PrefixAccess {
			continue
		}
		if _, err := secret.NewPrefixes(p); err != nil || p == "" {
			return form{}, fmt.Errorf("prefix %q is of no token that can be introspected", p)
		}
	}
	return form{prefixes: slices.Clone(prefixes)}, nil
}

// plausible reports whether a text has the form of a token, checksum included. patd decides which personal prefixes it
// uses: an unknown one is no reason to refuse.
func (f form) plausible(text string) bool {
	prefix, _, ok := strings.Cut(text, "_")
	if !ok || len(f.prefixes) > 0 && !slices.Contains(f.prefixes, prefix) {
		return false
	}
	var known secret.Prefixes // those that cannot be configured
	if prefix != secret.PrefixAccess {
		var err error
		if known, err = secret.NewPrefixes(prefix); err != nil {
			return false
		}
	}
	kind, _, err := known.Parse(secret.NewSecret(text))
	return err == nil && (kind == secret.KindPersonal || kind == secret.KindAccess)
}
