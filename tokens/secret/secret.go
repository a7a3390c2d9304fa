package secret

import (
	"fmt"
	"log/slog"
)

const redacted = "[secret]"

// Secret carries the text of a token. It prints as [secret] through fmt, log/slog and encoding/*, whatever the verb. It
// cannot be compared, so that no code compares it in variable time. It holds a pointer, so that printing a struct that
// contains it in an unexported field shows an address, not the text. Only Reveal returns the text.
//
// The zero Secret is empty.
type Secret struct {
	_    [0]func()
	text *string
}

// NewSecret wraps a text.
func NewSecret(text string) Secret { return Secret{text: &text} }

// SecretAt wraps the text at a place, which must not change while the Secret is in use. It copies and allocates
// nothing.
func SecretAt(text *string) Secret { return Secret{text: text} }

// Reveal returns the text. Its callers are few, and a review should look at each.
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
