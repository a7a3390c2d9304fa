package gatewaytest

import (
	"os"
	"path/filepath"
	"testing"

	"patd/internal/pagetest"
)

// TestPagesShowWhatIsTested holds that docs/ shows every configuration of testdata word for word, and no other one.
func TestPagesShowWhatIsTested(t *testing.T) {
	files, err := filepath.Glob("testdata/*.*")
	must(t, err)
	tested := map[string]string{}
	for _, file := range append(files, "testdata/Caddyfile") {
		text, err := os.ReadFile(file)
		must(t, err)
		tested[string(text)] = file
	}
	shown := map[string]bool{}
	for _, b := range pagetest.Blocks(t, "nginx", "caddyfile", "apache", "yaml config", "csharp") {
		file, ok := tested[b.Text]
		if shown[file] = true; !ok {
			t.Errorf("%s:%d shows what is not a file of testdata", b.Page, b.Line)
		}
	}
	for _, file := range tested {
		if !shown[file] {
			t.Errorf("no page shows %s as it is tested", file)
		}
	}
}
