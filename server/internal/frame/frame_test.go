package frame

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"patd/server/web"
)

// TestEveryTextIsInTheOneFile reads the keys out of the templates and compares them with the texts; keys that are made
// of parts are known by their beginning.
func TestEveryTextIsInTheOneFile(t *testing.T) {
	file, err := web.Files.ReadFile("texts/en.json")
	if err != nil {
		t.Fatal(err)
	}
	var texts map[string]string
	if err := json.Unmarshal(file, &texts); err != nil {
		t.Fatal(err)
	}
	key, counted := regexp.MustCompile(`\{\{t "([^"]+)"`), regexp.MustCompile(`\{\{n "([^"]+)"`)
	seen := 0
	err = fs.WalkDir(web.Files, "templates", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := web.Files.ReadFile(path)
		for _, m := range key.FindAllSubmatch(text, -1) {
			if seen++; texts[string(m[1])] == "" {
				t.Errorf("%s: there is no text %s", path, m[1])
			}
		}
		for _, m := range counted.FindAllSubmatch(text, -1) {
			if texts[string(m[1])+".one"] == "" || texts[string(m[1])+".other"] == "" {
				t.Errorf("%s: there are no texts %s.one and .other", path, m[1])
			}
		}
		// Words between tags would be English whatever the language.
		plain := regexp.MustCompile(`(?s)<[^>]*>|aria-[a-z]+="[^"]*"`).
			ReplaceAllString(regexp.MustCompile(`\{\{[^}]*\}\}`).ReplaceAllString(string(text), ""), "")
		if words := regexp.MustCompile(`[A-Za-z]{2,}`).FindAllString(plain, -1); len(words) > 0 {
			t.Errorf("%s: words stand in the template: %q", path, words)
		}
		return err
	})
	if err != nil || seen < 60 {
		t.Fatalf("%d keys, %v", seen, err)
	}
}

// TestEveryTemplateCanBeParsed holds what a server finds out only when it shows a page.
func TestEveryTemplateCanBeParsed(t *testing.T) {
	v, err := newViews(&Frame{})
	if err != nil || len(v.pages) < 20 {
		t.Fatalf("%d pages, %v", len(v.pages), err)
	}
	for name, parsed := range v.pages {
		if _, err := parsed(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWhatTheBrowserGetsIsSmallAndReadable holds the sizes that docs/page.md promises.
func TestWhatTheBrowserGetsIsSmallAndReadable(t *testing.T) {
	a, err := newAssets(Look{Accent: "#7a1fa2"})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for name, lines := range map[string]int{"page.css": 600, "page.js": 300, "embed.js": 300} {
		file := a.files[name]
		total += len(file.zipped)
		if n := bytes.Count(file.plain, []byte("\n")); n > lines {
			t.Errorf("%s has %d lines, more than %d", name, n, lines)
		}
	}
	if total > 30<<10 {
		t.Errorf("styles and script have %d bytes compressed, more than 30 KiB", total)
	}
	js := a.files["page.js"].plain
	for _, never := range []string{"innerHTML", "eval(", "document.write", "http://", "https://"} {
		if bytes.Contains(js, []byte(never)) {
			t.Errorf("page.js has %s", never)
		}
	}
}

// TestAnAccentThatCannotBeReadIsRefused knows WCAG's numbers.
func TestAnAccentThatCannotBeReadIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"#0a5bd3": "", "#000000": "", "#767676": "", "#777777": "too light", "#ffff00": "too light", "#ffffff": "too light",
		"red": "colour such as", "#12345": "colour such as", "#12345g": "colour such as", "0a5bd3": "colour such as", "": "colour such as",
	} {
		err := CheckAccent(text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if ratio := contrast(colour{1, 1, 1}, colour{}); ratio < 20.99 || ratio > 21.01 {
		t.Errorf("the contrast of white and black is %.2f", ratio)
	}
	night := colour{0x0d / 255.0, 0x11 / 255.0, 0x17 / 255.0}
	for _, text := range []string{"#000000", "#0a5bd3", "#7a1fa2", "#5d4037"} {
		_, dark, err := accents(text)
		if err != nil {
			t.Fatal(err)
		}
		raw := []byte{}
		for i := 1; i < 7; i += 2 {
			var b byte
			for _, r := range dark[i : i+2] {
				b = b<<4 | byte(strings.IndexRune("0123456789abcdef", r))
			}
			raw = append(raw, b)
		}
		lit := colour{float64(raw[0]) / 255, float64(raw[1]) / 255, float64(raw[2]) / 255}
		if got := contrast(lit, night); got < 4.5 {
			t.Errorf("%s becomes %s in the dark, whose contrast is %.2f", text, dark, got)
		}
	}
}
