package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patd/cmd/patd/internal/cli"
)

// TestCheckSaysWhatIsWrongAndWhatToDo edits a store by other means than patd: check names what it finds and the way out,
// and exits with 1, also where it prints JSON; where positions are behind it mends them.
func TestCheckSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	file, now := filepath.Join(data, "patd.db"), time.Now()
	check := func(code int, want []string, args ...string) {
		t.Helper()
		out, errs, got := runAt(t, now, append([]string{"check", "--data-dir", data}, args...)...)
		for _, text := range want {
			if !strings.Contains(out+errs, text) {
				t.Errorf("check %v: want %q in\n%s%s", args, text, out, errs)
			}
		}
		if got != code {
			t.Errorf("check %v: exit %d, want %d; it says\n%s%s", args, got, code, out, errs)
		}
	}
	if _, errs, code := runAt(
		t,
		now,
		"service",
		"create",
		"ops",
		"--permission",
		"audit",
		"--data-dir",
		data,
	); code != 0 {
		t.Fatal(errs)
	}

	hand(t, "sqlite", file, `UPDATE sqlite_sequence SET seq = 0 WHERE name = 'events'`)
	behind := "of the audit log would be given twice; `patd check --repair-positions` mends it"
	check(cli.ExitFault, []string{behind, file + ": 1 problem; run `patd check --repair-positions`"})
	check(cli.ExitFault, []string{behind, `"ok": false`, `"services": 1`}, "--json")
	check(cli.ExitOK, []string{"patd: ", "ok: " + file + ", 0 tokens, 1 service"}, "--repair-positions")
	check(cli.ExitOK, []string{"ok: "})

	hand(t, "sqlite", file, `UPDATE services SET permissions = 'admin'`)
	edited := " is refused: it has no checksum, and the rows of this store are sealed; revoke it"
	check(cli.ExitFault, []string{"service token ", edited,
		"they are refused wherever they are used; revoke what they are of, or stop the server and restore a backup"})
	check(cli.ExitFault, []string{edited, `"ok": false`}, "--json")

	hand(t, "sqlite", file, `UPDATE sqlite_sequence SET seq = 0 WHERE name = 'events'`)
	check(cli.ExitFault, []string{edited, behind, "2 problems; stop the server and restore a backup"})
}
