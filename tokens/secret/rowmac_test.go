package secret_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"patd/tokens/secret"
)

// rowKeys parses a key file with keys of the given names, each its own.
func rowKeys(t *testing.T, names ...string) *secret.Keys {
	t.Helper()
	var lines strings.Builder
	for _, name := range names {
		digit := string("0123456789abcdef"[1+len(name)%15])
		lines.WriteString(name + ":" + strings.Repeat(digit, 64) + "\n")
	}
	ks, err := secret.ParseKeys(lines.String())
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

var forms = map[string]bool{"short": true, "long": false}

// TestAChecksumIsOfItsRowAndItsKey changes each bit of a checksum, and of its row.
func TestAChecksumIsOfItsRowAndItsKey(t *testing.T) {
	t.Parallel()
	for form, short := range forms {
		ks := rowKeys(t, "k1", "key")
		row := []byte("t a row of some length, which ends")
		sum := ks.RowChecksum(row, short)
		if err := ks.CheckRow(row, sum); err != nil {
			t.Errorf("%s: %v", form, err)
		}
		for i := range len(sum) * 8 {
			other := bytes.Clone(sum)
			other[i/8] ^= 1 << (i % 8)
			if ks.CheckRow(row, other) == nil {
				t.Errorf("%s: with bit %d of the checksum changed it is still good", form, i)
			}
		}
		for i := range len(row) * 8 {
			other := bytes.Clone(row)
			other[i/8] ^= 1 << (i % 8)
			if err := ks.CheckRow(other, sum); !errors.Is(err, secret.ErrRowChanged) {
				t.Errorf("%s: with bit %d of the row changed: %v", form, i, err)
			}
		}
		for n := range len(sum) {
			if err := ks.CheckRow(row, sum[:n]); !errors.Is(err, secret.ErrRowChanged) {
				t.Errorf("%s: of %d of its %d bytes: %v", form, n, len(sum), err)
			}
		}
		if err := ks.CheckRow(row, append(bytes.Clone(sum), 0)); !errors.Is(err, secret.ErrRowChanged) {
			t.Errorf("%s: with a byte more: %v", form, err)
		}
		if err := rowKeys(t, "key", "k1").CheckRow(row, sum); err != nil {
			t.Errorf("%s: under a key that is not the current one: %v", form, err)
		}
		if err := rowKeys(t, "key").CheckRow(row, sum); !errors.Is(err, secret.ErrRowKeyMissing) {
			t.Errorf("%s: without its key: %v", form, err)
		}
		other, err := secret.ParseKeys("k1:" + strings.Repeat("e", 64))
		if err != nil {
			t.Fatal(err)
		}
		if err := other.CheckRow(row, sum); !errors.Is(err, secret.ErrRowChanged) {
			t.Errorf("%s: under another key of that name: %v", form, err)
		}
	}
}

// TestChecksumsAreMadeWhereFIPSIsEnforced, in a process of its own: it is a setting of the runtime's.
func TestChecksumsAreMadeWhereFIPSIsEnforced(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAChecksumIsOfItsRowAndItsKey$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestAChecksumIsOfItsRowAndItsKey") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestTwoChecksumsAreCutApart, of all forms and of keys with names of any length, whatever is in them.
func TestTwoChecksumsAreCutApart(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 32; n++ {
		a, b := rowKeys(t, strings.Repeat("a", n)), rowKeys(t, strings.Repeat("b", 33-n))
		for range 50 { // the long form is another each time
			for one, short := range forms {
				for two, shortToo := range forms {
					first, second := a.RowChecksum([]byte("ta"), short), b.RowChecksum([]byte("ub"), shortToo)
					x, y := secret.CutChecksum(append(bytes.Clone(first), second...))
					if !bytes.Equal(x, first) || !bytes.Equal(y, second) {
						t.Fatalf(
							"a %s and a %s one, of names of %d and %d characters, were cut at %d",
							one,
							two,
							n,
							33-n,
							len(x),
						)
					}
				}
				only := a.RowChecksum([]byte("ta"), short)
				if x, y := secret.CutChecksum(only); !bytes.Equal(x, only) || len(y) != 0 {
					t.Fatalf("one %s checksum was cut at %d", one, len(x))
				}
			}
		}
	}
}

// TestAChecksumIsFoundByTheNameOfItsKey: a key may go once no row has a checksum under it.
func TestAChecksumIsFoundByTheNameOfItsKey(t *testing.T) {
	t.Parallel()
	ks := rowKeys(t, "k1", "key")
	for form, short := range forms {
		sum := ks.RowChecksum([]byte("t"), short)
		under := func(name string) bool {
			a, b := secret.RowKeyPrefixes(name)
			return bytes.HasPrefix(sum, a) || bytes.HasPrefix(sum, b)
		}
		if !under("k1") || under("key") || under("k") || under("k12") {
			t.Errorf("%s: %t, %t, %t, %t", form, under("k1"), under("key"), under("k"), under("k12"))
		}
	}
}
