package cli

import (
	"regexp"

	"patd/tokens/secret"
)

// keyLine has the form of a key in a line of a key file.
var keyLine = regexp.MustCompile(`[0-9a-fA-F]{64}`)

// Redact removes secrets and keys from an error before it is printed. It should find none; it is a last safeguard.
func Redact(text string) string { return keyLine.ReplaceAllString(secret.Redact(text), "[secret]") }
