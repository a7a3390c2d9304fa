package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/waittest"
)

// TestHangingSourceLeavesRoomForRevoking holds that reads of features from a source that hangs, many of them at once,
// keep neither revocations nor introspections nor /v1/self waiting, over REST and over one connection of gRPC, and that
// the time limit of a request holds for what does wait.
func TestHangingSourceLeavesRoomForRevoking(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	const key, requestTimeout, sourceLimit = "a key of at least thirty-two bytes, for tests", 8 * time.Second, 30 * time.Second
	var hanging atomic.Int64
	end := make(chan struct{})
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var question struct{ User string }
		if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
			return
		}
		if strings.HasPrefix(question.User, "hangs") {
			hanging.Add(1)
			select {
			case <-end:
			case <-r.Context().Done():
			}
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"user":"`+question.User+`","features":["a"]}`)
	}))
	t.Cleanup(endpoint.Close)
	t.Cleanup(func() { close(end) })
	data, admin := administer(t)
	d := serve(t, data, "--features-source", "callback", "--features-callback-url", endpoint.URL,
		"--features-callback-key-file", written(t, "key", key), "--features-ttl", "1h", "--features-max-stale", "1h",
		"--features-timeout", sourceLimit.String(), "--request-timeout", requestTimeout.String())
	for name, flood := range map[string]func(ctx context.Context, user string) error{
		"REST": restFlood(d, admin), "gRPC": grpcFlood(t, d, admin),
	} {
		t.Run(name, func(t *testing.T) {
			a := connect(t, d, admin)
			secret := a.mint(t, "alice", "for "+name, "a")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			const reads = 1500
			var all sync.WaitGroup
			var over atomic.Int64
			before := hanging.Load()
			for i := range reads {
				all.Go(func() {
					began := time.Now()
					_ = flood(ctx, fmt.Sprint("hangs-", name, "-", i))
					if ctx.Err() == nil && time.Since(began) > requestTimeout+20*time.Second {
						over.Add(1)
					}
				})
			}
			waittest.Until(t, "reads hang", func() bool { return hanging.Load() >= before+100 })
			// What goes along with the reads must come back long before the first of them is given up.
			soon := func(what string, call func()) {
				t.Helper()
				began := time.Now()
				if call(); time.Since(began) > requestTimeout/2 {
					t.Errorf("%s took %v among the reads", what, time.Since(began))
				}
			}
			soon("an introspection", func() { a.wantScopes(t, "introspection", []string{secret}, "a") })
			soon("/v1/self", func() { d.call(t, http.MethodGet, "/v1/self", secret, "").want(t, "self", 200, "alice") })
			soon("a mint", func() { a.mint(t, "bob", "for "+name, "a") })
			soon("a revocation", func() { d.call(t, http.MethodDelete, "/v1/self", secret, "").want(t, "revoke", 200) })
			// The same connection of gRPC as that of the reads.
			soon("a revocation of all", func() {
				if err := flood(ctx, "revoke alice"); err != nil {
					t.Error(err)
				}
			})
			all.Wait()
			if n := over.Load(); n > 0 {
				t.Errorf("%d reads took longer than the time limit of a request", n)
			}
		})
	}
}

// restFlood reads the features of a user over REST, or revokes all tokens of one.
func restFlood(d *daemon, admin string) func(context.Context, string) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2000}}
	return func(ctx context.Context, user string) error {
		method, url := http.MethodGet, d.HTTP+"/v1/users/"+user+"/features"
		if of, ok := strings.CutPrefix(user, "revoke "); ok {
			method, url = http.MethodPost, d.HTTP+"/v1/users/"+of+"/tokens:revoke"
		}
		r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader("{}"))
		if err != nil {
			return err
		}
		if method == http.MethodGet {
			r.Body, r.ContentLength = nil, 0
		}
		r.Header.Set("Authorization", "Bearer "+admin)
		resp, err := client.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return err
	}
}

// grpcFlood is restFlood over one connection of gRPC.
func grpcFlood(t *testing.T, d *daemon, admin string) func(context.Context, string) error {
	t.Helper()
	conn, err := grpc.NewClient(d.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return func(ctx context.Context, user string) error {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+admin)
		if of, ok := strings.CutPrefix(user, "revoke "); ok {
			_, err := patdv1.NewTokenServiceClient(conn).RevokeTokens(ctx, &patdv1.RevokeTokensRequest{User: of})
			return err
		}
		_, err := patdv1.NewUserServiceClient(conn).GetUserFeatures(ctx, &patdv1.GetUserFeaturesRequest{User: user})
		return err
	}
}
