package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
)

// TestAServiceIsMadeOnceThoughTheServerIsKilled kills the server while clients make services with idempotency keys.
// Each client repeats its unanswered request at the next server; every key has made one service, with one secret.
func TestAServiceIsMadeOnceThoughTheServerIsKilled(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	const kills, clients = 4, 4
	data := filepath.Join(t.TempDir(), "data")
	admin := patd(t, "service", "create", "crash", "--permission", "admin", "--data-dir", data)
	d := serve(t, data)
	secrets := make([]map[string]string, clients) // by name; empty: the answer was lost
	for c := range clients {
		secrets[c] = map[string]string{}
	}
	create := func(services patdv1.ServiceAccountServiceClient, name string) (string, error) {
		r, err := services.CreateService(t.Context(), &patdv1.CreateServiceRequest{
			Name: name, Permissions: []string{"introspect"}, RequestId: "a key hard to guess of " + name,
		})
		return r.GetSecret(), err
	}
	total := 0
	for kill := range kills {
		a := connect(t, d, admin)
		services := patdv1.NewServiceAccountServiceClient(a.conn)
		var ends sync.WaitGroup
		for c, mine := range secrets {
			ends.Go(func() {
				for n := 0; ; n++ {
					name := fmt.Sprintf("s-%d-%d-%d", kill, c, n)
					secret, err := create(services, name)
					mine[name] = secret
					if err != nil {
						if err := lost(err); err != nil {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		//nolint:forbidigo // a random moment is what is asked for
		time.Sleep(
			time.Duration(50+rand.IntN(100)) * time.Millisecond,
		)
		d.Kill()
		ends.Wait()
		a.conn.Close()

		d = serve(t, data)
		a = connect(t, d, admin)
		services = patdv1.NewServiceAccountServiceClient(a.conn)
		for _, mine := range secrets {
			for name, answered := range mine {
				if !strings.HasPrefix(name, fmt.Sprintf("s-%d-", kill)) {
					continue
				}
				total++
				again, err := create(services, name)
				if err != nil || again == "" || answered != "" && again != answered {
					t.Errorf("%s: the secret is the same %v, empty %v, %v", name, again == answered, again == "", err)
					continue
				}
				_, err = connect(
					t,
					d,
					again,
				).introspect.Introspect(
					t.Context(),
					&patdv1.IntrospectRequest{Token: "pat_x"},
				)
				if err != nil {
					t.Errorf("%s: its secret: %v", name, err)
				}
			}
		}
		a.conn.Close()
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	listed := strings.Count(patd(t, "service", "list", "--data-dir", data), " ACTIVE ")
	if listed != total+1 || total < kills*clients {
		t.Errorf("%d services of %d keys and one more", listed, total)
	}
	if got := patd(t, "check", "--data-dir", data); !strings.HasPrefix(got, "ok: ") {
		t.Errorf("check: %s", got)
	}
}
