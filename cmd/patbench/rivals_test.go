package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"patd/client"
	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
)

// checkRivals wants a figure above zero in each cell of the tables of rivals and of local checks.
func checkRivals(t *testing.T, out string) {
	t.Helper()
	want := []string{
		"patd, Introspect, unary gRPC",
		"patd, IntrospectStream",
		"patd, BatchIntrospect of 100, a token",
		"patd, POST /v1/introspect",
		"patd, client library",
		"JWT, ES256, go-jose",
		"JWT, ES256, golang-jwt",
		"JWT, RS256, go-jose",
		"JWT, RS256, golang-jwt",
		"JWT, EdDSA, go-jose",
		"JWT, EdDSA, golang-jwt",
	}
	if redisOnPath() != "" {
		want = append(want, "Redis, GET")
	}
	for line := range strings.Lines(out) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "| "), " | ")
		i := slices.Index(want, cells[0])
		if i < 0 {
			continue
		}
		want = slices.Delete(want, i, i+1)
		for _, cell := range cells[1:] {
			if strings.Contains(cell, "(") || strings.HasPrefix(cell, "0.0") {
				continue // ratios, and CPU times that a short round need not show: the kernel counts in steps of 10 ms
			}
			if figure, err := strconv.ParseFloat(cell, 64); err != nil || figure <= 0 {
				t.Errorf("%s: the figure %q", cells[0], cell)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("there are no lines of %q in\n%s", want, out)
	}
}

// TestWrongAnswersEndTheRun plants a revoked token among those that are presented: each way to ask notices.
func TestWrongAnswersEndTheRun(t *testing.T) {
	longtest.Slow(t)
	var out bytes.Buffer
	b := newRig(t, &out)
	made, err := b.minted(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	b.texts = []string{made[0].GetSecret()}
	ask := func() map[string]error {
		subjects, end, err := b.ours(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		errs := map[string]error{}
		for _, s := range subjects {
			_, errs[s.name] = s.call(t.Context(), 0, rand.New(rand.NewPCG(1, 1)))
		}
		conn, err := client.Dial(b.server.grpc, client.ServiceToken(b.callersSecret))
		if err != nil {
			t.Fatal(err)
		}
		v, err := client.New(conn, client.Config{})
		if err != nil {
			t.Fatal(err)
		}
		_, errs["client library"] = verifyCall(v, b.texts)(t.Context(), 0, rand.New(rand.NewPCG(1, 1)))
		for _, end := range []func() error{end, v.Close, conn.Close} {
			if err := end(); err != nil {
				t.Error(err)
			}
		}
		return errs
	}
	for name, err := range ask() {
		if err != nil {
			t.Errorf("%s, of a good token: %v", name, err)
		}
	}
	revoke := &patdv1.RevokeTokenRequest{User: made[0].GetToken().GetUser(), TokenId: made[0].GetToken().GetTokenId()}
	mints := patdv1.NewTokenServiceClient(b.conns[0])
	if _, err := mints.RevokeToken(bearer(t.Context(), b.caller), revoke); err != nil {
		t.Fatal(err)
	}
	errs := ask()
	if len(errs) != 5 {
		t.Errorf("asked in %d ways: %v", len(errs), errs)
	}
	for name, err := range errs {
		if err == nil || !strings.Contains(fmt.Sprint(err), "wrong answer") {
			t.Errorf("%s, of a revoked token: %v", name, err)
		}
	}
}
