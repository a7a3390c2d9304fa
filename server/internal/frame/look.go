package frame

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/http"
	"path"
	"strconv"
	"strings"

	"patd/server/web"
)

// Look is what a company makes its own. The zero value is patd's.
type Look struct {
	Title  string // empty: that of the texts
	Logo   []byte // PNG, SVG, WebP or JPEG; nil: none
	Accent string // #rrggbb, see CheckAccent; empty: patd's
}

// maxLogo bounds a logo, in bytes.
const maxLogo = 256 << 10

// asset is one file for the browser.
type asset struct {
	kind          string
	plain, zipped []byte
	forever       bool // its name changes with its content
}

// assets are the files for the browser, by name.
type assets struct {
	files map[string]asset
	names map[string]string // the served name of page.css and so on
}

func newAssets(l Look) (assets, error) {
	a := assets{files: map[string]asset{}, names: map[string]string{}}
	for _, name := range []string{"page.css", "page.js", "embed.js", "icon.svg"} {
		text, err := web.Files.ReadFile("assets/" + name)
		if err != nil {
			return a, fmt.Errorf("read an asset: %w", err)
		}
		if name == "page.css" {
			theme, err := l.theme()
			if err != nil {
				return a, err
			}
			text = append(text, theme...)
		}
		if err := a.add(name, kindOf(name), text); err != nil {
			return a, err
		}
	}
	if l.Logo == nil {
		return a, nil
	}
	kind, extension := logoKind(l.Logo)
	if kind == "" || len(l.Logo) > maxLogo {
		return a, errors.New("--page-logo-file must be a PNG, SVG, WebP or JPEG image of at most 256 KiB")
	}
	if err := a.add("logo"+extension, kind, l.Logo); err != nil {
		return a, err
	}
	a.names["logo"] = a.names["logo"+extension]
	return a, nil
}

func kindOf(name string) string {
	switch path.Ext(name) {
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return "text/javascript; charset=utf-8"
}

func logoKind(b []byte) (kind, extension string) {
	switch kind := http.DetectContentType(b); {
	case kind == "image/png":
		return kind, ".png"
	case kind == "image/jpeg":
		return kind, ".jpg"
	case kind == "image/webp":
		return kind, ".webp"
	case bytes.Contains(b[:min(len(b), 1024)], []byte("<svg")):
		return "image/svg+xml", ".svg"
	}
	return "", ""
}

// add adds a file under a name with a digest of its content, and under its own.
func (a assets) add(name, kind string, text []byte) error {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(text); err != nil {
		return fmt.Errorf("compress an asset: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("compress an asset: %w", err)
	}
	sum := sha256.Sum256(text)
	served := strings.TrimSuffix(name, path.Ext(name)) + "-" + hex.EncodeToString(sum[:6]) + path.Ext(name)
	a.names[name] = served
	a.files[served] = asset{kind, text, zipped.Bytes(), true}
	a.files[name] = asset{kind, text, zipped.Bytes(), false}
	return nil
}

// ServeHTTP serves a file.
func (a assets) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.serve(w, r, r.PathValue("name")) }

// embed serves the custom element, which pages of other origins load.
func (a assets) embed(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
	a.serve(w, r, "embed.js")
}

func (a assets) serve(w http.ResponseWriter, r *http.Request, name string) {
	file, ok := a.files[name]
	if !ok {
		http.Error(w, "there is no such file", http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", file.kind)
	h.Set("Cache-Control", "no-cache")
	if file.forever {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("Vary", "Accept-Encoding")
	text := file.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		text = file.zipped
	}
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(text) // a failed write means that the client has gone
	}
}

// theme returns the styles of the accent.
func (l Look) theme() (string, error) {
	if l.Accent == "" {
		return "", nil
	}
	light, dark, err := accents(l.Accent)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(":root{--accent:%s}\n@media(prefers-color-scheme:dark){:root{--accent:%s}}\n", light, dark), nil
}

// CheckAccent returns an error unless a colour is #rrggbb and can be read as text on white, at 4.5 to 1 (WCAG 2.2,
// success criterion 1.4.3).
func CheckAccent(text string) error {
	_, _, err := accents(text)
	return err
}

type colour [3]float64 // red, green, blue from 0 to 1

// accents returns the accent for the light and the dark page: the dark one is lightened until it can be read.
func accents(text string) (light, dark string, err error) {
	digits, ok := strings.CutPrefix(text, "#")
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil || len(raw) != 3 {
		return "", "", errors.New("--page-accent must be a colour such as #0a5bd3")
	}
	c := colour{float64(raw[0]) / 255, float64(raw[1]) / 255, float64(raw[2]) / 255}
	const enough = 4.5
	if got := contrast(c, colour{1, 1, 1}); got < enough {
		return "", "", fmt.Errorf(
			"--page-accent %s is too light: its contrast with white is %.2f, and text needs %.1f; choose a darker colour",
			text,
			got,
			enough,
		)
	}
	night := colour{0x16 / 255.0, 0x1b / 255.0, 0x22 / 255.0}
	lit := c
	for step := 0.0; step < 1 && contrast(lit, night) < enough+1; step += 0.05 {
		for i := range lit {
			lit[i] = c[i] + (1-c[i])*step
		}
	}
	return text, fmt.Sprintf("#%02x%02x%02x", byte(lit[0]*255), byte(lit[1]*255), byte(lit[2]*255)), nil
}

// contrast returns the contrast ratio of two colours (WCAG 2.2).
func contrast(a, b colour) float64 {
	x, y := luminance(a), luminance(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func luminance(c colour) float64 {
	for i, v := range c {
		if v <= 0.04045 {
			c[i] = v / 12.92
		} else {
			c[i] = math.Pow((v+0.055)/1.055, 2.4)
		}
	}
	return 0.2126*c[0] + 0.7152*c[1] + 0.0722*c[2]
}
