// Package pagetest reads the project's pages: README.md and its neighbours, and docs/. Tests take from here the blocks
// that a reader would paste, so that each runs from wherever it stands.
//
// A block's kind is what follows its opening fence: the language, and where that is not enough a word of ours (`sh
// tour`). claims says which test runs the blocks of each kind, and a test fails on a block that no test claims.
package pagetest

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Block is a fenced block of a page.
type Block struct {
	Page string // relative to the repository, with slashes
	Line int    // of the opening fence, from 1
	Kind string
	Text string // with its last line feed
}

// Page is a page of Markdown.
type Page struct {
	Name string // relative to the repository, with slashes
	Text string
}

// Root returns the directory of the repository, relative to the working directory.
func Root(t testing.TB) string {
	t.Helper()
	root := "."
	for range 8 {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			return root
		}
		root = filepath.Join(root, "..")
	}
	t.Fatal("no go.mod in any directory above")
	return ""
}

// Pages returns the pages at the top and below docs/, in the order of their names.
func Pages(t testing.TB) []Page {
	t.Helper()
	root := Root(t)
	names, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err == nil {
		err = filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
			if strings.HasSuffix(path, ".md") {
				names = append(names, path)
			}
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	var pages []Page
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, Page{Name: filepath.ToSlash(rel), Text: string(text)})
	}
	return pages
}

// Blocks returns the blocks of the named kinds on all pages, in order, or all blocks if no kind is named. It fails the
// test if there are none.
func Blocks(t testing.TB, kinds ...string) []Block {
	t.Helper()
	var found []Block
	for _, p := range Pages(t) {
		for _, b := range p.Blocks(t) {
			if len(kinds) == 0 {
				found = append(found, b)
			}
			for _, k := range kinds {
				if b.Kind == k {
					found = append(found, b)
				}
			}
		}
	}
	if len(found) == 0 {
		t.Fatalf("no page has a block of %q", kinds)
	}
	return found
}

// Blocks returns the page's blocks in order.
func (p Page) Blocks(t testing.TB) []Block {
	t.Helper()
	const fence = "```"
	var found []Block
	var open *Block
	line := 0
	for text := range strings.Lines(p.Text) {
		line++
		marked, is := strings.CutPrefix(text, fence)
		switch {
		case open == nil && is:
			open = &Block{Page: p.Name, Line: line, Kind: strings.TrimSpace(marked)}
		case open != nil && is:
			found, open = append(found, *open), nil
		case open != nil:
			open.Text += text
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block does not end", p.Name, open.Line)
	}
	return found
}
