package tokensource

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"sync"
	"time"

	"patd/tokens/secret"
)

// ErrReplaced is returned by Store.Save when the store no longer holds the secret that was to be replaced.
var ErrReplaced = errors.New("the stored token has been replaced meanwhile")

// Store keeps the secret of one token.
type Store interface {
	// Load returns the present secret.
	Load(ctx context.Context) (Stored, error)
	// Save puts next in the place of previous, and returns once it cannot be lost. It returns ErrReplaced, and changes
	// nothing, if the store holds another secret than previous.
	Save(ctx context.Context, previous, next secret.Secret) error
}

// Preparer is a Store that can say beforehand that Save would fail. The token is not rotated then.
type Preparer interface {
	Prepare(ctx context.Context) error
}

// Stored is what a Store holds.
type Stored struct {
	Secret secret.Secret
	// Since is when it was stored.
	Since time.Time
}

// Memory returns a Store for a secret that the program keeps by its own means. save is called with each new secret
// before that is used, and must return once the secret cannot be lost. Nil: it is not kept.
func Memory(text string, save func(ctx context.Context, text string) error) Store {
	return &memory{
		//nolint:forbidigo // it decides only when the secret is rotated
		stored: Stored{secret.NewSecret(text), time.Now()},
		save:   save,
	}
}

type memory struct {
	mu     sync.Mutex
	stored Stored
	save   func(context.Context, string) error
}

// Load returns the secret.
func (m *memory) Load(context.Context) (Stored, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stored, nil
}

// Save keeps the secret.
func (m *memory) Save(ctx context.Context, previous, next secret.Secret) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !same(m.stored.Secret, previous) {
		return ErrReplaced
	}
	if m.save != nil {
		if err := m.save(ctx, next.Reveal()); err != nil {
			return fmt.Errorf("store the new secret: %w", err)
		}
	}
	m.stored = Stored{next, time.Now()} //nolint:forbidigo // as above
	return nil
}

// same reports whether two secrets are equal.
func same(a, b secret.Secret) bool {
	return subtle.ConstantTimeCompare([]byte(a.Reveal()), []byte(b.Reveal())) == 1
}
