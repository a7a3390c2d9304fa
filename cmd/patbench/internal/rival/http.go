package rival

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
)

// newClient keeps a connection for each worker.
func newClient(workers int) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxConnsPerHost: workers, MaxIdleConnsPerHost: workers}}
}

// request is a call over HTTP.
type request struct {
	method, url string
	header      http.Header
	body        string
}

// send sends a request and returns the answer's body, which stands in the buffer. Any status but 2xx is an error.
func (r request) send(ctx context.Context, client *http.Client, into *bytes.Buffer) ([]byte, error) {
	var body io.Reader
	if r.body != "" {
		body = bytes.NewReader([]byte(r.body))
	}
	q, err := http.NewRequestWithContext(ctx, r.method, r.url, body)
	if err != nil {
		return nil, err
	}
	q.Header = r.header.Clone()
	answer, err := client.Do(q)
	if err != nil {
		return nil, err
	}
	into.Reset()
	_, err = io.Copy(into, answer.Body)
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return nil, err
	}
	if answer.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %.500s", r.method, r.url, answer.Status, into)
	}
	return into.Bytes(), nil
}

// decode sends a request and decodes the answer, where an answer is wanted.
func (r request) decode(ctx context.Context, client *http.Client, answer any) error {
	text, err := r.send(ctx, client, new(bytes.Buffer))
	if err != nil || answer == nil {
		return err
	}
	return json.Unmarshal(text, answer)
}

// waitFor is a probe: url returns 2xx.
func waitFor(client *http.Client, url string) probe {
	return func(ctx context.Context) error {
		return request{method: http.MethodGet, url: url}.decode(ctx, client, nil)
	}
}

// asked is one token's request, and what must stand in its answer.
type asked struct {
	request request
	want    []string
}

// callOf sends the requests at random and wants each answer to hold what is wanted.
func callOf(client *http.Client, all []asked) Call {
	buffers := sync.Pool{New: func() any { return new(bytes.Buffer) }}
	return func(ctx context.Context, _ int, rnd *rand.Rand) (int, error) {
		one := all[rnd.IntN(len(all))]
		into, _ := buffers.Get().(*bytes.Buffer)
		defer buffers.Put(into)
		text, err := one.request.send(ctx, client, into)
		if err != nil {
			return 0, err
		}
		return 1, holds(text, one.want)
	}
}

// holds wants every text to stand in an answer.
func holds(answer []byte, want []string) error {
	for _, w := range want {
		if !bytes.Contains(answer, []byte(w)) {
			return fmt.Errorf("wrong answer: %q is missing in %.500s", w, answer)
		}
	}
	return nil
}
