package rival

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// kinds are the rivals that the test binary stands in for.
var kinds = map[string]struct {
	program string
	start   func(context.Context, Config) (*Server, error)
	works   []string
}{
	"OpenBao": {"bao", OpenBao, []string{"OpenBao, lookup", "OpenBao, lookup-self"}},
	"Hydra":   {"hydra", Hydra, []string{"Ory Hydra, introspect"}},
	"Unkey":   {"unkey", Unkey, []string{"Unkey, verifyKey"}},
}

// configOf has the test binary stand in for a program, with a fault.
func configOf(t *testing.T, program string) Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := Config{Binary: filepath.Join(dir, program), Dir: dir, Tokens: 12, Workers: 2}
	if err := os.Symlink(self, c.Binary); err != nil {
		t.Fatal(err)
	}
	return c
}

func setUnkeyEnv(t *testing.T) {
	t.Helper()
	for name, value := range unkeyEnv {
		t.Setenv(name, value)
	}
}

// call calls once and returns the error.
func call(t *testing.T, w Work, worker int) error {
	t.Helper()
	n, err := w.Call(t.Context(), worker, rand.New(rand.NewPCG(uint64(worker), 1)))
	if err == nil && n != 1 {
		t.Errorf("%s: %d answers", w.Name, n)
	}
	return err
}

// TestRivalsAreAsked holds what is asked of each rival: it is started with what it must be, gets its tokens, checks
// them, and is gone when it is stopped.
func TestRivalsAreAsked(t *testing.T) {
	setUnkeyEnv(t)
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			s, err := kind.start(t.Context(), configOf(t, kind.program))
			if err != nil {
				t.Fatal(err)
			}
			var works []string
			for _, w := range s.Works {
				works = append(works, w.Name)
				for worker := range 2 {
					if err := call(t, w, worker); err != nil {
						t.Errorf("%s: %v", w.Name, err)
					}
				}
			}
			if !slices.Equal(works, kind.works) {
				t.Errorf("asked in the ways %q", works)
			}
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
			if err := syscall.Kill(s.PID(), 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("after it was stopped: %v", err)
			}
		})
	}
}

// TestRivalsThatFail holds that an error names the rival and has what it answered, or logged last.
func TestRivalsThatFail(t *testing.T) {
	setUnkeyEnv(t)
	const log = "its log ends: "
	for name, kind := range kinds {
		for fault, want := range map[string][]string{
			"ends":    {"start " + name + ", ", kind.program + ".ends: it ended: exit status 3", log + "this machine is too small"},
			"forbids": {"prepare " + name + ": ", "403 Forbidden: see the log", log + "what is asked is not allowed here"},
			"garbles": {"prepare " + name + ": ", "invalid character '<'"},
			"omits":   {"prepare " + name + ": ", "the answer holds n"},
		} {
			if name == "Unkey" && fault == "omits" {
				continue // a key that is no key is found by the first call
			}
			t.Run(name+" "+fault, func(t *testing.T) {
				s, err := kind.start(t.Context(), configOf(t, kind.program+"."+fault))
				if err == nil {
					t.Fatal(errors.Join(errors.New("it is measured"), s.Stop()))
				}
				holdsAll(t, err, want...)
			})
		}
		for fault, want := range map[string][]string{
			"mistakes": {"wrong answer: ", "; its log is empty"},
			"dies":     {log + "panic: no memory is left"},
		} {
			t.Run(name+" "+fault, func(t *testing.T) {
				s, err := kind.start(t.Context(), configOf(t, kind.program+"."+fault))
				if err != nil {
					t.Fatal(err)
				}
				for _, w := range s.Works {
					if err := call(t, w, 0); err == nil {
						t.Errorf("%s: the answer passes", w.Name)
					} else {
						holdsAll(t, err, want...)
					}
				}
				if err := s.Stop(); err != nil {
					t.Error(err)
				}
			})
		}
		t.Run(name+" is not there", func(t *testing.T) {
			_, err := kind.start(t.Context(), Config{Binary: "/none/" + kind.program, Dir: t.TempDir(), Tokens: 1})
			holdsAll(t, err, "start "+name+": ", "/none/"+kind.program)
		})
	}
}

// TestUnkeyNeedsItsEnvironment holds that what is missing is named before anything is started.
func TestUnkeyNeedsItsEnvironment(t *testing.T) {
	for missing := range unkeyEnv {
		setUnkeyEnv(t)
		t.Setenv(missing, "")
		_, err := Unkey(t.Context(), configOf(t, "unkey"))
		holdsAll(t, err, "start Unkey: "+missing+" is not set")
	}
}

// TestRivalIsAwaitedNoLongerThanTheBench holds that the end of the bench ends a rival that is not ready.
func TestRivalIsAwaitedNoLongerThanTheBench(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	never := func(context.Context) error { cancel(); return errors.New("not ready") }
	_, err := start(ctx, "Sleeper", Config{Binary: "/bin/sleep", Dir: t.TempDir()}, nil, never, "60")
	holdsAll(t, err, "start Sleeper, /bin/sleep: ")
}

func holdsAll(t *testing.T, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%q is missing in: %v", w, err)
		}
	}
}
