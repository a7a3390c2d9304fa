package cli

import (
	"regexp"

	"patd/tokens/secret"
)

// keyLine has the form of a key in a line of a key file.
var keyLine = regexp.MustCompile(`[0-9a-fA-F]{64}`)

// Redact removes secrets and keys from what is about to be printed as an error. Nothing should ever be found; it is the last door.
func Redact(text string) string { return keyLine.ReplaceAllString(secret.Redact(text), "[secret]") }
