package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"patd/internal/dialguard"
	"patd/internal/tracecontext"
	"patd/tokens"
)

const (
	// sendTimeout bounds one attempt, from the connection to the last byte of the answer that is read.
	sendTimeout = 15 * time.Second
	// maxAnswer is how many bytes of an answer's body are read. They are not kept: a short body that is read to its end
	// lets the connection be used again.
	maxAnswer = 4 << 10
	// maxRetryAfter bounds how long an endpoint may ask to be left alone at once.
	maxRetryAfter = 24 * time.Hour
)

// Failure names in one word why an attempt failed; empty: it did not.
type Failure string

// The failures.
const (
	FailureStatus  Failure = "status"  // the endpoint answered, with another status than 2xx
	FailureTimeout Failure = "timeout" // no answer within 15 s
	FailureAddress Failure = "address" // it is in a network that may not be connected to
	FailureDNS     Failure = "dns"     // its name has no address
	FailureConnect Failure = "connect" // no connection
	FailureTLS     Failure = "tls"     // its certificate is not valid, or it speaks no TLS
	FailureNetwork Failure = "network" // the connection ended before the answer
	FailureConfig  Failure = "config"  // its URL or its secret cannot be used here
)

// Outcome is how an attempt ended.
type Outcome struct {
	Status     int           // of HTTP; 0: there was no answer
	Failure    Failure       // empty: it was accepted
	RetryAfter time.Duration // how long the endpoint asks to be left alone; 0: it does not
}

// Accepted reports whether the endpoint accepted the message.
func (o Outcome) Accepted() bool { return o.Failure == "" }

// Gone reports whether the endpoint asks for no message ever again.
func (o Outcome) Gone() bool { return o.Status == http.StatusGone }

// Sender sends messages to one endpoint. It follows no redirect, uses no proxy, and connects only to addresses that its
// guard allows, which is checked for each connection after its name was resolved. It is safe for concurrent use.
type Sender struct {
	url    string
	client *http.Client
	now    func() time.Time
}

var errAddress = errors.New("the address may not be connected to")

// SenderConfig says where messages go.
type SenderConfig struct {
	// URL of the endpoint: https, or http on this machine.
	URL string
	// AllowPrivate are networks that may be connected to although they are not public.
	AllowPrivate []netip.Prefix
	// Connections is how many connections there may be at once; 0: any number.
	Connections int
	// Now is the clock of the signatures; required.
	Now func() time.Time

	resolver *net.Resolver  // for tests; nil: the system's
	roots    *x509.CertPool // for tests; nil: the system's
}

// NewSender checks the configuration. It connects to nothing yet.
func NewSender(c SenderConfig) (*Sender, error) {
	guard, err := dialguard.Check(c.URL, c.AllowPrivate)
	if err != nil {
		return nil, err
	}
	return &Sender{url: c.URL, now: c.Now, client: guard.Client(dialguard.ClientConfig{
		Timeout:   sendTimeout,
		MaxHeader: 16 << 10,
		Roots:     c.roots,
		Idle:      c.Connections,
		Most:      c.Connections,
		Resolver:  c.resolver,
		Refused:   func(err error) error { return fmt.Errorf("%w: %w", errAddress, err) },
	})}, nil
}

// Close closes the idle connections.
func (s *Sender) Close() { s.client.CloseIdleConnections() }

// Send makes one attempt to deliver a message, signed with each of the secrets. The endpoint gets the trace of ctx.
func (s *Sender) Send(ctx context.Context, id string, body []byte, secrets ...tokens.Secret) Outcome {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	at := s.now()
	signature, err := sign(id, at, body, secrets)
	if err != nil {
		return Outcome{Failure: FailureConfig}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return Outcome{Failure: FailureConfig}
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "patd-webhook")
	r.Header.Set(standardwebhooks.HeaderWebhookID, id)
	r.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
	r.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	tracecontext.Inject(ctx, r.Header)
	answer, err := s.client.Do(r)
	if err != nil {
		return Outcome{Failure: failureOf(ctx, err)}
	}
	// The status decides; of the body nothing is needed.
	_, _ = io.CopyN(io.Discard, answer.Body, maxAnswer)
	_ = answer.Body.Close()
	out := Outcome{Status: answer.StatusCode}
	if out.Status < 200 || out.Status > 299 {
		out.Failure, out.RetryAfter = FailureStatus, retryAfter(answer.Header.Get("Retry-After"), s.now())
	}
	return out
}

// sign returns the header webhook-signature: one signature with each secret, so that a receiver which has either of
// them can verify the message.
func sign(id string, at time.Time, body []byte, secrets []tokens.Secret) (string, error) {
	signatures := make([]string, 0, len(secrets))
	for _, secret := range secrets {
		w, err := standardwebhooks.NewWebhook(secret.Reveal())
		if err != nil {
			return "", errors.New("the secret of the webhook is not one") // the library's error may repeat a part of it
		}
		one, err := w.Sign(id, at, body)
		if err != nil {
			return "", fmt.Errorf("sign a message: %w", err)
		}
		signatures = append(signatures, one)
	}
	if len(signatures) == 0 {
		return "", errors.New("sign a message: the webhook has no secret")
	}
	return strings.Join(signatures, " "), nil
}

func failureOf(ctx context.Context, err error) Failure {
	var (
		name    *net.DNSError
		timeout interface{ Timeout() bool }
		invalid *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		alert   tls.AlertError
		op      *net.OpError
	)
	switch {
	case errors.Is(err, errAddress):
		return FailureAddress
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return FailureTimeout
	case errors.As(err, &name):
		return FailureDNS
	case errors.As(err, &invalid), errors.As(err, &record), errors.As(err, &alert):
		return FailureTLS
	case errors.As(err, &op) && op.Op == "dial":
		return FailureConnect
	default:
		return FailureNetwork
	}
}

// retryAfter reads the header Retry-After (RFC 9110 section 10.2.3): seconds, or a time.
func retryAfter(text string, now time.Time) time.Duration {
	var d time.Duration
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		d = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
