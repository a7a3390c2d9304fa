package client

import (
	"fmt"
	"slices"
	"strings"

	"patd/tokens"
)

// form knows what can be a token that patd introspects.
type form struct{ prefixes []string }

func newForm(prefixes []string) (form, error) {
	for _, p := range prefixes {
		if p == tokens.PrefixAccess {
			continue
		}
		if _, err := tokens.NewPrefixes(p); err != nil || p == "" {
			return form{}, fmt.Errorf("prefix %q is of no token that can be introspected", p)
		}
	}
	return form{prefixes: slices.Clone(prefixes)}, nil
}

// plausible tells whether a text has the form of a token, checksum included. Which personal prefixes patd uses is patd's to
// say: one that is not known here is no reason to refuse.
func (f form) plausible(text string) bool {
	prefix, _, ok := strings.Cut(text, "_")
	if !ok || len(f.prefixes) > 0 && !slices.Contains(f.prefixes, prefix) {
		return false
	}
	var known tokens.Prefixes // those that cannot be configured
	if prefix != tokens.PrefixAccess {
		var err error
		if known, err = tokens.NewPrefixes(prefix); err != nil {
			return false
		}
	}
	kind, _, err := known.Parse(tokens.NewSecret(text))
	return err == nil && (kind == tokens.KindPersonal || kind == tokens.KindAccess)
}
