package cli

import "testing"

func TestSizesAreReadAsTheyAreWritten(t *testing.T) {
	for _, text := range []string{"1KiB", "256MiB", "3GiB", "1025KiB"} {
		var b ByteSize
		if err := b.Set(text); err != nil || b.String() != text {
			t.Errorf("%s: read as %s, %v", text, &b, err)
		}
	}
	b := ByteSize(1 << 20)
	for _, text := range []string{"", "MiB", "0MiB", "-1MiB", "256", "256MB", "1.5GiB", "9999999999GiB", "1 GiB"} {
		if err := b.Set(text); err == nil || b != 1<<20 {
			t.Errorf("%q was read as %s", text, &b)
		}
	}
}
