//go:build !race

package browsertest

import (
	"bytes"
	"flag"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var makePictures = flag.Bool("pictures", false, "make the pictures of docs/page.md anew")

// TestThePageOfDocsShowsThreePictures holds that they are there, small, and shown with words for who cannot see them.
// `make pictures` makes them.
func TestThePageOfDocsShowsThreePictures(t *testing.T) {
	const docs = "../../docs"
	if *makePictures {
		need(t)
		s, err := shared()
		must(t, err)
		at, err := filepath.Abs(docs + "/pictures")
		must(t, err)
		must(t, os.MkdirAll(at, 0o755))
		s.More = map[string]string{"pictures": at}
		s.script(t, "pictures.mjs")
	}
	page, err := os.ReadFile(docs + "/page.md")
	must(t, err)
	found, err := filepath.Glob(docs + "/pictures/*")
	must(t, err)
	var names []string
	for _, path := range found {
		name := filepath.Base(path)
		names = append(names, name)
		text, err := os.ReadFile(path)
		must(t, err)
		picture, err := png.DecodeConfig(bytes.NewReader(text))
		if err != nil || picture.Width < 600 || len(text) >= 100<<10 {
			t.Errorf("%s: %d pixels wide, %d bytes, %v", name, picture.Width, len(text), err)
		}
		if before, _, ok := strings.Cut(string(page), "](pictures/"+name+")"); !ok || strings.HasSuffix(before, "![") {
			t.Errorf("docs/page.md does not show %s, or without words", name)
		}
	}
	if !slices.Equal(names, []string{"made.png", "new.png", "tokens.png"}) {
		t.Errorf("the pictures are %v", names)
	}
}
