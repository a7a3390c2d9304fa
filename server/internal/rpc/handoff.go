package rpc

import (
	"net/url"
	"strings"

	"patd/tokens"
)

// HandoffURL returns the address at which the code of a hand-off signs a browser in, below the issuer.
func HandoffURL(issuer string, code tokens.Secret) string {
	return strings.TrimRight(issuer, "/") + "/handoff?code=" + url.QueryEscape(code.Reveal())
}
