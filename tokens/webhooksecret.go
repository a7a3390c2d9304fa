package tokens

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"patd/tokens/secret"
)

const (
	// webhookSecretPrefix and webhookSecretSize are the form of Standard Webhooks: the prefix, and the key in base64.
	webhookSecretPrefix = "whsec_"
	webhookSecretSize   = 32
	// webhookGrace is how long a secret that was rotated away signs along.
	webhookGrace = 24 * time.Hour
	// webhookSealLabel derives the key under which secrets of webhooks are sealed from a digest key.
	webhookSealLabel = "webhook secret"
)

// mintWebhookSecret makes the secret of a webhook.
func mintWebhookSecret(rand io.Reader) (Secret, error) {
	raw := make([]byte, webhookSecretSize)
	if _, err := io.ReadFull(rand, raw); err != nil {
		return Secret{}, fmt.Errorf("mint the secret of a webhook: %w", err)
	}
	return secret.NewSecret(webhookSecretPrefix + base64.StdEncoding.EncodeToString(raw)), nil
}

// sealedFor is what a sealed secret is bound to, so that it opens for its own webhook only.
func sealedFor(webhook ID) []byte { return []byte("webhook " + webhook.String()) }

// sealWebhookSecret seals the secret of a webhook under the current key.
func sealWebhookSecret(ks *Keys, webhook ID, text Secret, rand io.Reader) (SealedSecret, error) {
	k := ks.All()[0]
	key := k.DeriveBytes(webhookSealLabel)
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return SealedSecret{}, fmt.Errorf("seal the secret of a webhook: %w", err)
	}
	box := make([]byte, aead.NonceSize(), aead.NonceSize()+len(text.Reveal())+aead.Overhead())
	if _, err := io.ReadFull(rand, box); err != nil {
		return SealedSecret{}, fmt.Errorf("seal the secret of a webhook: %w", err)
	}
	return SealedSecret{Key: k.Name, Box: aead.Seal(box, box, []byte(text.Reveal()), sealedFor(webhook))}, nil
}

var errSealKey = errors.New("the key that it is sealed under is not in the key file")

// openWebhookSecret opens what sealWebhookSecret sealed.
func openWebhookSecret(ks *Keys, webhook ID, s SealedSecret) (Secret, error) {
	at := slices.IndexFunc(ks.All(), func(k secret.Key) bool { return k.Name == s.Key })
	if at < 0 {
		return Secret{}, errSealKey
	}
	key := ks.All()[at].DeriveBytes(webhookSealLabel)
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil || len(s.Box) < aead.NonceSize() {
		return Secret{}, errors.New("it is too short")
	}
	text, err := aead.Open(nil, s.Box[:aead.NonceSize()], s.Box[aead.NonceSize():], sealedFor(webhook))
	if err != nil {
		return Secret{}, errors.New("it is not as patd wrote it, or of another webhook")
	}
	return secret.NewSecret(string(text)), nil
}

// OpenWebhookSecrets returns the secrets that sign what is sent to a webhook now: the current one first, then the one
// before, for a day after its rotation.
func (s *Service) OpenWebhookSecrets(w Webhook) ([]Secret, error) {
	keys, now := s.keys.Get(), s.Now()
	current, err := openWebhookSecret(keys, w.Num, w.Secret)
	if err != nil {
		return nil, fmt.Errorf("open the secret of webhook %s: %w", w.ID, err)
	}
	if w.OldSecret.IsZero() || !now.Before(w.OldUntil) {
		return []Secret{current}, nil
	}
	old, err := openWebhookSecret(keys, w.Num, w.OldSecret)
	if err != nil {
		return nil, fmt.Errorf("open the earlier secret of webhook %s: %w", w.ID, err)
	}
	return []Secret{current, old}, nil
}

// resealWebhooks seals the secrets of webhooks that are sealed under a key under the current one, and drops those that
// sign no more.
func resealWebhooks(tx Tx, ks *Keys, key string, now time.Time, rand io.Reader) error {
	for after := ""; ; {
		page, err := tx.Webhooks(after, MaxPageSize)
		if err != nil {
			return fmt.Errorf("read webhooks: %w", err)
		}
		for _, w := range page {
			after = w.ID
			if w.Secret.Key != key && w.OldSecret.Key != key {
				continue
			}
			if err := w.reseal(ks, key, now, rand); err != nil {
				return err
			}
			if err := tx.UpdateWebhook(w); err != nil {
				return fmt.Errorf("seal the secret of webhook %s: %w", w.ID, err)
			}
		}
		if len(page) < MaxPageSize {
			return nil
		}
	}
}

func (w *Webhook) reseal(ks *Keys, key string, now time.Time, rand io.Reader) error {
	if !w.OldSecret.IsZero() && !now.Before(w.OldUntil) {
		w.OldSecret, w.OldUntil = SealedSecret{}, time.Time{}
	}
	for _, sealed := range []*SealedSecret{&w.Secret, &w.OldSecret} {
		if sealed.Key != key {
			continue
		}
		text, err := openWebhookSecret(ks, w.Num, *sealed)
		if err == nil {
			*sealed, err = sealWebhookSecret(ks, w.Num, text, rand)
		}
		if err != nil {
			return fmt.Errorf("seal the secret of webhook %s anew: %w", w.ID, err)
		}
	}
	return nil
}
