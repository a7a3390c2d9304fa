package replicatest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"patd/client"
)

// deprovisionedIsRefusedEverywhereInTime has an identity provider deactivate users by SCIM, at each replica in turn,
// and measures from before its call until every replica refuses their tokens, and until the memory of a client library
// of each does, which is the last to know.
func deprovisionedIsRefusedEverywhereInTime(t *testing.T, c *cluster) {
	l := startLoad(t, c, 2)
	f := &freshness{}
	var memories []*client.Verifier
	for _, r := range c.replicas {
		at := r.now()
		v, err := client.New(at.conn, client.Config{})
		must(t, err)
		t.Cleanup(func() { must(t, v.Close()) })
		memories = append(memories, v)
	}
	ctx, home := t.Context(), c.replicas[0].now()
	must(t, home.hold(ctx, "leaver", "a"))
	tok, _, err := home.mint(ctx, "leaver", "laptop", "")
	must(t, err)
	_, body, err := home.scim(
		ctx,
		http.MethodPost,
		"/Users",
		`{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"leaver","externalId":"leaver","active":true}`,
	)
	must(t, err)
	_, id, _ := strings.Cut(body, `"id":"`)
	id, _, _ = strings.Cut(id, `"`)
	active := func(at *api, yes bool) error {
		code, body, err := at.scim(
			ctx,
			http.MethodPatch,
			"/Users/"+id,
			fmt.Sprintf(`{"Operations":[{"op":"replace","value":{"active":%t}}]}`, yes),
		)
		if err == nil && code >= http.StatusMultipleChoices {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err
	}
	until := func(want bool) error {
		var g sync.WaitGroup
		errs := make([]error, 2*len(c.replicas))
		for n, r := range c.replicas {
			g.Go(func() { errs[2*n] = untilAllowed(ctx, r.now(), tok.secret, want) })
			g.Go(func() { errs[2*n+1] = untilInMemory(ctx, memories[n], tok.secret, want) })
		}
		g.Wait()
		return errors.Join(errs...)
	}
	deadline := time.Now().Add(lasting(t, "PATD_FRESH", measureFor))
	for round := 0; time.Now().Before(deadline) || f.count() < measureLeast; round++ {
		at := c.replicas[round%len(c.replicas)].now()
		must(t, until(true))
		began := time.Now()
		must(t, active(at, false))
		must(t, until(false))
		f.add(time.Since(began))
		must(t, active(at, true))
	}
	t.Logf("from the provider's call until all refuse: %s; %d other calls", f, l.end())
	f.judge(t)
}

func untilAllowed(ctx context.Context, a *api, secret string, want bool) error {
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for {
		got, err := a.decide(ctx, secret)
		if err != nil || (got == allow) == want {
			return err
		}
		<-pause.C
	}
}

func untilInMemory(ctx context.Context, v *client.Verifier, secret string, want bool) error {
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for {
		got, err := v.Verify(ctx, secret, client.Call{})
		if err != nil || got.Allowed() == want {
			return err
		}
		<-pause.C
	}
}

// scim is a call of an identity provider.
func (a *api) scim(ctx context.Context, method, path, body string) (code int, text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, a.url+"/scim/v2"+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", "application/scim+json")
	r.Header.Set("Authorization", "Bearer "+a.secret)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(all), err
}
