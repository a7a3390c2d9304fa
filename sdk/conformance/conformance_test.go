package main

import (
	"errors"
	"os"
	"strings"
	"testing"

	"patd/internal/longtest"
	"patd/internal/proctest"
	"patd/internal/sdktest"
)

func TestMain(m *testing.M) { os.Exit(proctest.Main(m)) }

// built builds patd once and returns its path.
var built = proctest.Once()

// logged writes lines to the log of a test.
type logged struct{ t *testing.T }

func (l logged) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

// goDriver builds the driver of the Go library.
func goDriver(t *testing.T) string {
	t.Helper()
	path, err := proctest.BuildProgram("patd/sdk/go/driver", "driver")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestTheGoLibraryConforms plays the short scenarios, or with LONG_TESTS all of them.
func TestTheGoLibraryConforms(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	patd, err := built()
	if err != nil {
		t.Fatal(err)
	}
	o := options{binary: patd, lanes: 2, slack: 4, again: 2, short: !longtest.Enabled(), command: []string{goDriver(t)}}
	if err := play(t.Context(), o, logged{t}); err != nil {
		t.Error(err)
	}
}

// TestRevokedTokensAreRefusedUnderLoad revokes tokens with the Go library while two loops check others: a few, to see
// that it works, or PATD_REVOCATIONS of them.
func TestRevokedTokensAreRefusedUnderLoad(t *testing.T) {
	longtest.Only(t)
	t.Parallel()
	patd, err := built()
	if err != nil {
		t.Fatal(err)
	}
	o := options{binary: patd, slack: 4, measure: sdktest.Size("PATD_REVOCATIONS", 5), command: []string{goDriver(t)}}
	if err := play(t.Context(), o, logged{t}); err != nil {
		t.Error(err)
	}
}

// TestADriverThatBreaksTheProtocolFails has programs that are no drivers, and one that lets everything pass.
func TestADriverThatBreaksTheProtocolFails(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"it says nothing":               `exit 0`,
		"it writes what is no JSON":     `read x; echo hello`,
		"it speaks another protocol":    `read x; echo '{"id": 1, "protocol": 2, "speaks": "http"}'`,
		"it speaks something else":      `read x; echo '{"id": 1, "protocol": 1, "speaks": "smtp"}'`,
		"it answers what was not asked": `read x; echo '{"id": 7, "protocol": 1, "speaks": "http"}'`,
	} {
		d, err := startDriver([]string{"sh", "-c", script})
		if err == nil {
			t.Errorf("%s: %v", name, errors.Join(errors.New("it is taken for a driver"), d.stop()))
		}
	}
}

func TestEveryScenarioIsReadable(t *testing.T) {
	t.Parallel()
	all, err := scenarios()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 60 {
		t.Errorf("%d scenarios", len(all))
	}
	for _, s := range all {
		for i, step := range s.Steps {
			for _, want := range append([]string{step.Want}, step.Or...) {
				_, ordinary := reasons[want]
				switch {
				case ordinary,
					want == "",
					want == "error",
					strings.HasPrefix(want, "error:"),
					want == "USER_SUSPENDED",
					want == "AUDIENCE_MISMATCH",
					want == "IP_NOT_ALLOWED":
				default:
					t.Errorf("%s, step %d: no driver ever answers %q", s.Name, i+1, want)
				}
			}
			if (step.Check != "" || step.End != "") && step.Want == "" {
				t.Errorf("%s, step %d: a check that wants nothing", s.Name, i+1)
			}
		}
	}
}
