package features

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"sync/atomic"
	"time"

	"patd/features/signature"
	"patd/internal/dialguard"
	"patd/internal/tracecontext"
	"patd/tokens"
)

// CallbackConfig says which endpoint to ask, and how.
type CallbackConfig struct {
	// URL of the endpoint: https, or http on this machine only.
	URL string
	// HMACKey signs the requests: at least 32 bytes. It, or HMACKeyFile, is required.
	HMACKey tokens.Secret
	// HMACKeyFile holds the key; one line end at the end of the file is not part of it.
	HMACKeyFile string
	// Timeout bounds one request, from the connection to the last byte; 0: 2 s.
	Timeout time.Duration
	// MaxBody is how many bytes an answer may have; 0: 1 MiB.
	MaxBody int64
	// MaxFeatures is how many features an answer may hold; 0: 4096.
	MaxFeatures int
	// AllowPrivate lists address ranges that may be connected to although they are not public.
	AllowPrivate []netip.Prefix
	// CACertFile holds, in PEM, the only authorities to trust; empty: those of the system.
	CACertFile string
	// Now is the clock of the signatures; required.
	Now func() time.Time

	resolver *net.Resolver // for tests; nil: the system's
}

func (c CallbackConfig) withDefaults() CallbackConfig {
	if c.Timeout <= 0 {
		c.Timeout = 2 * time.Second
	}
	if c.MaxBody <= 0 {
		c.MaxBody = 1 << 20
	}
	if c.MaxFeatures <= 0 {
		c.MaxFeatures = defaultMaxFeatures
	}
	return c
}

// Callback is a source that asks the company's endpoint. It is safe for concurrent use.
//
// It sends POST with {"user": "<id>"}, signed as package signature describes. 200 with {"user": "<id>", "features":
// ["…"]} returns what the user holds; 404 with {"user": "unknown"}, as application/json, says that there is no such
// user, who holds nothing. Anything else is an outage, and so is a proxy's 404.
//
// The user in an answer of 200 may be left out. It distinguishes the answer to this request from one left over from
// another on the same connection. So an answer that does not name its user counts only on a connection that carried no
// other request before, or over HTTP/2, which numbers them; HTTP/1.1 connections to an endpoint that names none are not
// reused.
type Callback struct {
	config CallbackConfig
	key    tokens.Secret
	client *http.Client
	single *http.Client // as client, with a connection for each request
	// nameless reports that the newest answer over HTTP/1.1 did not name its user.
	nameless atomic.Bool
}

var _ tokens.FeatureSource = (*Callback)(nil)

// NewCallback checks the configuration. It sends no request yet.
func NewCallback(c CallbackConfig) (*Callback, error) {
	c = c.withDefaults()
	if c.Now == nil {
		return nil, errors.New("set up the features callback: a clock is needed")
	}
	key, err := callbackKey(c)
	if err != nil {
		return nil, fmt.Errorf("set up the features callback: %w", err)
	}
	g, err := dialguard.Check(c.URL, c.AllowPrivate)
	if err != nil {
		return nil, fmt.Errorf("set up the features callback: %w", err)
	}
	var roots *x509.CertPool
	if c.CACertFile != "" {
		if roots, err = readRoots(c.CACertFile); err != nil {
			return nil, fmt.Errorf("set up the features callback: %w", err)
		}
	}
	// The cache bounds how many requests are under way at once, see rooms.
	kept := dialguard.ClientConfig{
		Timeout:   c.Timeout,
		MaxHeader: 64 << 10,
		Roots:     roots,
		Idle:      quickRequests,
		Resolver:  c.resolver,
	}
	once := kept
	once.Idle = 0
	return &Callback{config: c, key: key, client: g.Client(kept), single: g.Client(once)}, nil
}

func callbackKey(c CallbackConfig) (tokens.Secret, error) {
	key := c.HMACKey
	switch {
	case c.HMACKeyFile != "" && !key.IsEmpty():
		return key, errors.New("the key is given both by itself and by a file; give one")
	case c.HMACKeyFile != "":
		var err error
		if key, err = readSecretFile(c.HMACKeyFile); err != nil {
			return key, err
		}
	}
	if len(key.Reveal()) < signature.MinKey {
		return key, fmt.Errorf(
			"the HMAC key must have at least %d bytes; openssl rand -hex 32 makes one",
			signature.MinKey,
		)
	}
	return key, nil
}

// Features asks the endpoint, whether fresh or not.
func (c *Callback) Features(ctx context.Context, u tokens.User, _ bool) (tokens.Held, error) {
	limited, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	held, err := c.ask(limited, u.ID)
	if err != nil {
		if errors.Is(limited.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("no whole answer within %v", c.config.Timeout)
		}
		return tokens.Held{}, outage(ctx, "ask the features callback", err)
	}
	return held, nil
}

// Local returns false: features change without patd.
func (*Callback) Local() bool { return false }

// Close closes the idle connections. There are no others once the calls have returned.
func (c *Callback) Close() error {
	c.client.CloseIdleConnections()
	c.single.CloseIdleConnections()
	return nil
}

// errLeftover reports that the answer may belong to another request.
var errLeftover = errors.New("the answer does not name its user, on a connection that carried other requests")

// ask sends the request. If the answer may belong to another request, it asks again, on a connection of its own.
func (c *Callback) ask(ctx context.Context, user string) (tokens.Held, error) {
	held, err := c.send(ctx, user, c.nameless.Load())
	if errors.Is(err, errLeftover) {
		held, err = c.send(ctx, user, true)
	}
	return held, err
}

// send sends the request once. With alone it uses a new connection, which is closed afterwards.
func (c *Callback) send(ctx context.Context, user string, alone bool) (tokens.Held, error) {
	body, err := json.Marshal(struct {
		User string `json:"user"`
	}{user})
	if err != nil {
		return tokens.Held{}, fmt.Errorf("write the request: %w", err)
	}
	var reused atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { reused.Store(i.Reused) },
	})
	r, err := http.NewRequestWithContext(traced, http.MethodPost, c.config.URL, bytes.NewReader(body))
	if err != nil {
		return tokens.Held{}, errors.New("write the request: its URL is not one")
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "patd")
	r.Header.Set(signature.Header, signature.Sign([]byte(c.key.Reveal()), body, c.config.Now()))
	tracecontext.Inject(ctx, r.Header)
	// Without a value it is not sent; it lets the transport retry on a new connection when the endpoint has closed the
	// old one.
	r.Header["Idempotency-Key"] = []string{}
	client := c.client
	if alone {
		client = c.single
	}
	response, err := client.Do(r)
	if err != nil {
		return tokens.Held{}, loggable(err)
	}
	defer response.Body.Close()
	names, named, err := c.read(response, user)
	numbered := response.ProtoMajor >= 2
	if err == nil && c.nameless.Swap(!named && !numbered) != (!named && !numbered) {
		c.client.CloseIdleConnections()
	}
	if reused.Load() && !named && !numbered {
		return tokens.Held{}, errLeftover
	}
	if err != nil {
		return tokens.Held{}, err
	}
	return answered(names)
}

// read reads an answer, and reports whether it named the user of the request.
func (c *Callback) read(response *http.Response, user string) (names []string, named bool, err error) {
	// One byte more than allowed shows the excess. A body that is read to its end leaves the connection usable.
	body, err := io.ReadAll(io.LimitReader(response.Body, c.config.MaxBody+1))
	status := response.StatusCode
	switch {
	case status != http.StatusOK && status != http.StatusNotFound:
		return nil, false, fmt.Errorf("the endpoint returned status %d", status)
	case err != nil:
		return nil, false, fmt.Errorf("read the answer: %w", loggable(err))
	case int64(len(body)) > c.config.MaxBody:
		return nil, false, fmt.Errorf("the answer has more than %d bytes", c.config.MaxBody)
	case status == http.StatusNotFound && !saysUnknown(response, body):
		return nil, false, errNotFound
	case status == http.StatusNotFound:
		return []string{}, false, nil
	case response.Header.Get("Content-Encoding") != "":
		return nil, false, errors.New("the answer is encoded, which was not asked for")
	case !isJSON(response):
		return nil, false, errors.New("the answer's content type is not application/json")
	}
	return parseFeatures(body, user, c.config.MaxFeatures)
}

// errNotFound is the outage of a 404 that the endpoint itself did not send, such as a proxy's.
var errNotFound = errors.New(`the endpoint returned status 404 without saying that the user is unknown: ` +
	`application/json and {"user": "unknown"}`)

// saysUnknown reports whether a 404 says that there is no such user.
func saysUnknown(response *http.Response, body []byte) bool {
	return response.Header.Get("Content-Encoding") == "" && isJSON(response) && parseUnknown(body)
}

func isJSON(response *http.Response) bool {
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	return err == nil && kind == "application/json"
}
