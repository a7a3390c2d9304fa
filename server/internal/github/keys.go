package github

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"patd/internal/dialguard"
	"patd/internal/flight"
	"patd/internal/secretfile"
	"patd/server/internal/call"
	"patd/tokens"
)

// DefaultKeysURL is where GitHub publishes the keys that it signs its messages with.
const DefaultKeysURL = "https://api.github.com/meta/public_keys/secret_scanning"

const (
	renewAfter   = time.Hour       // older keys are fetched again
	trustedFor   = 24 * time.Hour  // while that fails, keys stay valid for this long
	fetchTimeout = 5 * time.Second // for one fetch
	retryFirst   = 3 * time.Second // after a failure there is no fetch for this long, and twice as long after the next
	retryMost    = time.Minute
	lookEvery    = 2 * time.Minute // fetches for unknown keys, in the long run: GitHub allows 60 an hour
	looksAtOnce  = 5               // and in a burst
	maxBody      = 1 << 20
	maxKeys      = 100
	maxWaiting   = 64 // messages that wait for a fetch at once
)

// KeysConfig says where GitHub's keys are fetched from.
type KeysConfig struct {
	// URL is https, or http on this machine; see DefaultKeysURL.
	URL string
	// CAFile holds, in PEM, the only authorities to trust; empty: those of the system.
	CAFile string
	Logger *slog.Logger
	Now    func() time.Time
}

// Keys are the public keys of GitHub, by their identifiers. They are safe for concurrent use.
type Keys struct {
	url     string
	client  *http.Client
	logger  *slog.Logger
	now     func() time.Time
	waiting chan struct{}

	mu       sync.Mutex
	known    map[string]*ecdsa.PublicKey
	etag     string
	fetched  time.Time // zero: never
	fetching *flight.Flight[struct{}, struct{}]
	failed   time.Time // when the last fetch failed; zero: it did not
	pause    time.Duration
	looks    time.Time // when the full burst of looksAtOnce is allowed again
}

// NewKeys checks the configuration. It fetches nothing yet.
func NewKeys(c KeysConfig) (*Keys, error) {
	guard, err := dialguard.Check(c.URL, nil)
	if err != nil {
		return nil, fmt.Errorf("set up the keys of GitHub, --github-leak-keys-url: %w", err)
	}
	var roots *x509.CertPool
	if c.CAFile != "" {
		text, err := secretfile.Read(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("set up the keys of GitHub, --github-leak-ca-file: %w", err)
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf(
				"set up the keys of GitHub, --github-leak-ca-file: %s holds no certificate in PEM form",
				c.CAFile,
			)
		}
	}
	client := guard.Client(dialguard.ClientConfig{Timeout: fetchTimeout, MaxHeader: 64 << 10, Roots: roots})
	client.Timeout = fetchTimeout
	return &Keys{
		url:     c.URL,
		client:  client,
		logger:  c.Logger,
		now:     c.Now,
		waiting: make(chan struct{}, maxWaiting),
	}, nil
}

var errNoKey = errors.New("GitHub publishes no such key")

// get returns the key with an identifier, or errNoKey. If that cannot be found out, it is an outage.
func (k *Keys) get(ctx context.Context, id string) (*ecdsa.PublicKey, error) {
	key, age, err := k.atHand(ctx, id)
	if err == nil || errors.Is(err, errNoKey) {
		return key, err
	}
	if key != nil && age <= trustedFor {
		return key, nil
	}
	return nil, &tokens.Error{
		Code:    tokens.CodeUnavailable,
		Reason:  "GITHUB_KEYS_UNAVAILABLE",
		Message: "the keys of GitHub cannot be fetched now, so that its signature cannot be verified; send the message again",
		Cause:   err,
	}
}

// atHand returns the key with an identifier, and how old it is. An error other than errNoKey says why there are no
// newer keys.
func (k *Keys) atHand(ctx context.Context, id string) (*ecdsa.PublicKey, time.Duration, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, now := k.known[id], k.now()
	age := now.Sub(k.fetched)
	fresh := !k.fetched.IsZero() && age >= 0 && age <= renewAfter
	switch {
	case fresh && key != nil:
		return key, age, nil
	case fresh && k.fetching == nil && k.failed.IsZero() && !k.mayLook(now):
		return nil, age, errNoKey
	}
	if err := k.fetch(ctx, now); err != nil {
		return key, age, err
	}
	if key = k.known[id]; key == nil {
		return nil, 0, errNoKey
	}
	return key, 0, nil
}

// mayLook uses up one of the fetches for unknown keys, if one is allowed. k.mu is held.
func (k *Keys) mayLook(now time.Time) bool {
	if k.looks.Before(now) {
		k.looks = now
	}
	if k.looks.Sub(now) > (looksAtOnce-1)*lookEvery {
		return false
	}
	k.looks = k.looks.Add(lookEvery)
	return true
}

// fetch fetches the keys, or waits for the fetch under way. k.mu is held, but not meanwhile.
func (k *Keys) fetch(ctx context.Context, now time.Time) error {
	if f := k.fetching; f != nil {
		f.Join()
		k.mu.Unlock()
		defer k.mu.Lock()
		select {
		case k.waiting <- struct{}{}:
			defer func() { <-k.waiting }()
		default:
			return errors.New("too many messages wait for the keys")
		}
		if err := f.Wait(ctx); err != nil {
			return fmt.Errorf("wait for the keys of GitHub: %w", err)
		}
		_, err := f.Result()
		return err
	}
	if since := now.Sub(k.failed); !k.failed.IsZero() && since >= 0 && since < k.pause {
		return errors.New("the last fetch has failed a moment ago")
	}
	f := flight.New[struct{}, struct{}](struct{}{})
	k.fetching = f
	known, etag, err := k.ask(ctx)
	before := !k.failed.IsZero()
	if now = k.now(); err == nil {
		k.fetched, k.failed, k.pause = now, time.Time{}, 0
		if known != nil { // else they are unchanged
			k.known, k.etag = known, etag
		}
	} else {
		k.failed, k.pause = now, min(max(2*k.pause, retryFirst), retryMost)
	}
	k.fetching = nil
	f.Land(struct{}{}, err)
	k.report(ctx, before, err)
	return err
}

// report logs when fetches begin to fail, and when they work again.
func (k *Keys) report(ctx context.Context, before bool, err error) {
	switch {
	case err != nil && !before:
		k.logger.LogAttrs(ctx, slog.LevelWarn, "the keys of GitHub cannot be fetched; those at hand serve for a day",
			slog.String("cause", call.LogText(err.Error())))
	case err == nil && before:
		k.logger.LogAttrs(ctx, slog.LevelInfo, "the keys of GitHub can be fetched again")
	}
}

// ask sends the request, without k.mu. It outlives the message that needs it. No keys and no error: they are unchanged.
func (k *Keys) ask(ctx context.Context) (known map[string]*ecdsa.PublicKey, etag string, err error) {
	etag = k.etag
	k.mu.Unlock()
	defer k.mu.Lock()
	defer func() {
		if recover() != nil { // so that no later message waits for ever; the value may hold anything
			err = errors.New("fetch the keys: panic")
		}
	}()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(bounded, http.MethodGet, k.url, nil)
	if err != nil {
		return nil, "", errors.New("fetch the keys: their URL is none")
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "patd")
	if etag != "" {
		r.Header.Set("If-None-Match", etag) // which does not count against GitHub's limit
	}
	resp, err := k.client.Do(r)
	if err != nil {
		var asked *url.Error // which repeats the URL
		if errors.As(err, &asked) {
			err = asked.Err
		}
		return nil, "", fmt.Errorf("fetch the keys: %w", err)
	}
	defer resp.Body.Close()
	if etag != "" && resp.StatusCode == http.StatusNotModified {
		return nil, etag, nil
	}
	if resp.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("fetch the keys: status %d", resp.StatusCode)
	}
	text, err := io.ReadAll(http.MaxBytesReader(nil, resp.Body, maxBody))
	if err != nil {
		return nil, "", fmt.Errorf("read the keys: %w", err)
	}
	if known, err = parseKeys(text); err != nil {
		return nil, "", fmt.Errorf("read the keys: %w", err)
	}
	return known, resp.Header.Get("Etag"), nil
}

// parseKeys reads the document of keys. Those of another kind than ECDSA on P-256 are left out. A document without a
// usable key is an outage, since no message could be verified.
func parseKeys(text []byte) (map[string]*ecdsa.PublicKey, error) {
	var document struct {
		Keys []struct {
			ID  string `json:"key_identifier"`
			Key string `json:"key"`
		} `json:"public_keys"`
	}
	if json.Unmarshal(text, &document) != nil {
		return nil, errors.New("the document is not what GitHub publishes")
	}
	if len(document.Keys) > maxKeys {
		return nil, fmt.Errorf("there are %d, more than %d", len(document.Keys), maxKeys)
	}
	known := map[string]*ecdsa.PublicKey{}
	for _, k := range document.Keys {
		block, _ := pem.Decode([]byte(k.Key))
		if block == nil {
			continue
		}
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			continue
		}
		if key, ok := parsed.(*ecdsa.PublicKey); ok && key.Curve == elliptic.P256() {
			known[k.ID] = key
		}
	}
	if len(known) == 0 {
		return nil, errors.New("there is none that can be used")
	}
	return known, nil
}
