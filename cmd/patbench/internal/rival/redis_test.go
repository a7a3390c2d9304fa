package rival

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"patd/internal/longtest"
)

// TestRedisIsAsked starts a real Redis, and holds that a value that is not the one written is noticed.
func TestRedisIsAsked(t *testing.T) {
	longtest.Slow(t)
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	s, conns, err := startRedis(t.Context(), Config{Binary: binary, Dir: t.TempDir(), Tokens: 1, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	work, err := redisWork(conns, 1)
	if err != nil {
		t.Fatal(err)
	}
	get := work.Call
	for worker := range 2 {
		if n, err := get(t.Context(), worker, rand.New(rand.NewPCG(1, 1))); err != nil || n != 1 {
			t.Fatalf("worker %d: %d, %v", worker, n, err)
		}
	}
	for _, command := range [][]string{{"SET", redisKey(0), "another"}, {"DEL", redisKey(0)}} {
		if _, err := conns[0].do(command...); err != nil {
			t.Fatal(err)
		}
		if _, err := get(t.Context(), 1, rand.New(rand.NewPCG(1, 1))); err == nil {
			t.Errorf("after %s, the answer passes", command)
		}
	}
	if _, err := conns[0].do("NONSENSE"); err == nil {
		t.Error("an error of Redis passes")
	}
}
