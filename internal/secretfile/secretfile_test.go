package secretfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"patd/internal/secretfile"
)

func TestASecretIsTheLineWithoutItsEnd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secret")
	for content, want := range map[string]string{"s3cret": "s3cret", "s3cret\n": "s3cret", "s3cret\r\n": "s3cret", " s3cret \n": " s3cret "} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := secretfile.ReadLine(path); err != nil || got != want {
			t.Errorf("%q is read as %q, %v", content, got, err)
		}
	}
	link := path + ".link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := secretfile.ReadLine(link); err != nil {
		t.Errorf("through a symbolic link: %v", err)
	}
}

// A file that is no secret is an error at once: nothing blocks, and nothing of the content is in the error.
func TestWhatIsNoRegularFileIsAnErrorAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe, large, empty := filepath.Join(dir, "pipe"), filepath.Join(dir, "large"), filepath.Join(dir, "empty")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(large, []byte(strings.Repeat("x", secretfile.MaxSize+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, large, empty, dir, "/dev/zero"} {
		if _, err := secretfile.ReadLine(
			path,
		); err == nil || !strings.Contains(err.Error(), path) ||
			strings.Contains(err.Error(), "xxx") {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
	if _, err := secretfile.ReadLine(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that does not exist: %v", err)
	}
}

func TestATokenFileHoldsOneToken(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	for content, good := range map[string]bool{
		"pat_abc": true, "pat_abc\n": true, "pat_abc\r\n": true,
		"": false, "\n": false, "pat_abc\npat_def\n": false, " pat_abc": false, "pat_äbc": false, strings.Repeat("x", 257): false,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := secretfile.ReadToken(path)
		if good != (err == nil) || good && got != "pat_abc" {
			t.Errorf("%.20q is read as %q, %v", content, got, err)
		}
		if err != nil && (strings.Contains(err.Error(), "pat_") || !strings.Contains(err.Error(), path)) {
			t.Errorf("%.20q: the error is %v", content, err)
		}
	}
	for mode, others := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if got := secretfile.OthersCanRead(path); got != others {
			t.Errorf("%o: others can read it: %v", mode, got)
		}
	}
}
