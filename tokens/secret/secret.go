package secret

import (
	"fmt"
	"log/slog"
)

const redacted = "[secret]"

// Secret carries the text of a token. It prints as [secret] through fmt, log/slog and encoding/*, whatever the
// verb; it cannot be compared, so that nobody compares it in variable time; and it holds a pointer, so that printing a
// struct that contains it in an unexported field shows an address, not the text. Reveal is the only way out.
//
// The zero Secret is empty.
type Secret struct {
	_    [0]func()
	text *string
}

// NewSecret wraps a text.
func NewSecret(text string) Secret { return Secret{text: &text} }

// Reveal returns the text. Its callers are few, and each is a place to look at in a review.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsEmpty reports whether there is no text.
func (s Secret) IsEmpty() bool { return s.Reveal() == "" }

// String returns [secret].
func (Secret) String() string { return redacted }

// Format writes [secret], for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue returns [secret].
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns [secret].
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
