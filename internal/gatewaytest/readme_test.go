package gatewaytest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadmeShowsWhatIsTested holds that every configuration here stands in the README, word for word.
func TestReadmeShowsWhatIsTested(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	must(t, err)
	files, err := filepath.Glob("testdata/*.*")
	must(t, err)
	files = append(files, "testdata/Caddyfile")
	if len(files) < 5 {
		t.Fatalf("there are only %v", files)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		if !strings.Contains(string(readme), "\n"+string(text)+"```\n") {
			t.Errorf("the README does not show %s as it is tested", file)
		}
	}
}
