package remote

import (
	"errors"
	"strings"

	"patd/tokens"
)

// Explain returns the text of an error for the user of the command.
func Explain(err error) string {
	var own *tokens.Error
	if !errors.As(err, &own) || own.Code == tokens.CodeInternal {
		return strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	text := own.Reason + ": " + own.Message
	for i, v := range own.Violations {
		if i > 0 {
			text += "; " + v.Field + ": " + v.Description
		}
	}
	if own.Cause != nil {
		text += ": " + own.Cause.Error()
	}
	return strings.ReplaceAll(text, "\n", "; ")
}
