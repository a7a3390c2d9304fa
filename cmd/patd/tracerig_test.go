package main

import (
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
)

// traceparent returns a new trace of a caller, and its id.
func traceparent() (parent, traceID string) {
	id := make([]byte, 24)
	for i := range id {
		id[i] = byte(1 + rand.N(255))
	}
	traceID = hex.EncodeToString(id[:16])
	return "00-" + traceID + "-" + hex.EncodeToString(id[16:]) + "-01", traceID
}

// request makes a request with headers, given as name and value in turn.
func (d *daemon) request(t *testing.T, method, path, body string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, d.HTTP+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(text)}
}

// surface is one way to make a call, and what its span must have.
type surface struct {
	name, method string
	decision     string
	call         func(t *testing.T, parent string)
}
