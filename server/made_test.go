package server_test

import (
	"bytes"
	"image"
	"image/jpeg"
	"image/png"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"patd/server"
)

// TestAServerThatCannotBeMadeLeavesNothingBehind names the setting that is wrong, and holds neither its addresses nor,
// as the end of the tests shows, a goroutine.
func TestAServerThatCannotBeMadeLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for name, c := range map[string]struct {
		change func(*server.Config)
		says   string
	}{
		"no service":       {func(c *server.Config) { c.Service = nil }, "a token service is needed"},
		"the issuer":       {func(c *server.Config) { c.Issuer = "ftp://patd.example.com" }, "the issuer must be a URL"},
		"an issuer's path": {func(c *server.Config) { c.Issuer = "https://patd.example.com?x" }, "the issuer must be a URL"},
		"SCIM's attribute": {func(c *server.Config) { c.SCIMUserID = "emails" }, `"emails" is none of externalId, userName and id`},
		"a logo that is none": {
			func(c *server.Config) { c.Page.Look.Logo = []byte("GIF89a") }, "--page-logo-file must be a PNG, SVG, WebP or JPEG",
		},
		"a logo that is too large": {
			func(c *server.Config) { c.Page.Look.Logo = append([]byte("<svg>"), make([]byte, 256<<10)...) },
			"of at most 256 KiB",
		},
		"an accent that is none":      {func(c *server.Config) { c.Page.Look.Accent = "red" }, "--page-accent must be a colour"},
		"an accent that is too pale":  {func(c *server.Config) { c.Page.Look.Accent = "#eeeeee" }, "--page-accent #eeeeee is too light"},
		"plain text on every address": {func(c *server.Config) { c.HTTPAddr = "0.0.0.0:0" }, "TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := server.Config{Service: r.svc, HTTPAddr: freeAddress(t), GRPCAddr: freeAddress(t)}
			addresses := []string{config.HTTPAddr, config.GRPCAddr}
			c.change(&config)
			if _, err := server.New(config); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error with %q", err, c.says)
			}
			for _, address := range addresses {
				lis, err := net.Listen("tcp", address)
				if err != nil {
					t.Errorf("its address is still taken: %v", err)
					continue
				}
				must(t, lis.Close())
			}
		})
	}
}

// TestACompanysLookIsServed has a logo of each kind, and the colour in the styles.
func TestACompanysLookIsServed(t *testing.T) {
	t.Parallel()
	picture := image.NewGray(image.Rect(0, 0, 2, 2))
	var asPNG, asJPEG bytes.Buffer
	must(t, png.Encode(&asPNG, picture))
	must(t, jpeg.Encode(&asJPEG, picture, nil))
	for kind, logo := range map[string][]byte{
		"image/png": asPNG.Bytes(), "image/jpeg": asJPEG.Bytes(),
		"image/webp":    []byte("RIFF\x24\x00\x00\x00WEBPVP8 \x18\x00\x00\x00"),
		"image/svg+xml": []byte(`<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"></svg>`),
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(c *server.Config) {
				c.Page.Look = server.Look{Title: "Keys of Example", Logo: logo, Accent: "#7a1fa2"}
			})
			b := newBrowser(r)
			page := b.get("/signin").wants(http.StatusOK, "Keys of Example")
			for _, c := range []struct{ of, kind, has string }{
				{`src="(/assets/logo-[^"]*)"`, kind, string(logo)},
				{`href="(/assets/page-[^"]*\.css)"`, "text/css; charset=utf-8", ":root{--accent:#7a1fa2}"},
				{`src="(/assets/page-[^"]*\.js)"`, "text/javascript; charset=utf-8", ""},
			} {
				at := regexp.MustCompile(c.of).FindStringSubmatch(page.text)
				if at == nil {
					t.Fatalf("the page has no %s\n%s", c.of, page.text)
				}
				got := b.get(at[1])
				if got.code != http.StatusOK || got.header.Get("Content-Type") != c.kind ||
					!strings.Contains(got.text, c.has) ||
					got.header.Get("Cache-Control") != "public, max-age=31536000, immutable" {
					t.Errorf("%s: %d %v", at[1], got.code, got.header)
				}
				if head := b.send(http.MethodHead, at[1], nil); head.code != http.StatusOK || head.text != "" {
					t.Errorf("HEAD %s: %d, %d bytes", at[1], head.code, len(head.text))
				}
			}
			if got := b.get("/assets/page.css"); got.header.Get("Cache-Control") != "no-cache" {
				t.Errorf("under a name that does not change: %v", got.header)
			}
			b.get("/assets/logo-000000000000.png").wants(http.StatusNotFound)
			b.send(http.MethodPost, "/assets/page.css", nil).wants(http.StatusMethodNotAllowed)
			if allow := b.send(http.MethodDelete, "/new", nil).
				wants(http.StatusMethodNotAllowed).
				header.Get(
				"Allow",
			); allow != "GET, POST" {
				t.Errorf("DELETE /new: Allow %q", allow)
			}
			b.get("/tokens/").wants(http.StatusNotFound)
		})
	}
}

// TestPagesOfAnIssuerWithTLSAskForItForever has a server behind a proxy that speaks TLS.
func TestPagesOfAnIssuerWithTLSAskForItForever(t *testing.T) {
	t.Parallel()
	for issuer, want := range map[string]string{"https://patd.example.com": "max-age=31536000", "http://patd.example.com": ""} {
		r := newRig(t, func(c *server.Config) { c.Issuer = issuer })
		if got := newBrowser(r).get("/signin").header.Get("Strict-Transport-Security"); got != want {
			t.Errorf("%s: %q, want %q", issuer, got, want)
		}
	}
}

// TestACertificateIsReadAnewOnDemand keeps the one before while the files cannot be read, and says why.
func TestACertificateIsReadAnewOnDemand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if _, err := server.LoadCertificate(certFile, keyFile, nil); err == nil ||
		!strings.Contains(err.Error(), "look at the TLS certificate: ") {
		t.Errorf("without files: %v", err)
	}
	writePair(t, certFile, keyFile, 1)
	c, err := server.LoadCertificate(certFile, keyFile, nil)
	must(t, err)
	serial := func() int64 {
		cert, err := c.TLS().GetCertificate(nil)
		must(t, err)
		return cert.Leaf.SerialNumber.Int64()
	}
	writePair(t, certFile, keyFile, 2)
	must(t, c.Reload())
	if got := serial(); got != 2 {
		t.Errorf("after a reload the certificate is number %d", got)
	}
	good, err := os.ReadFile(keyFile)
	must(t, err)
	for says, spoil := range map[string]func(){
		"look at the TLS key: ":              func() { must(t, os.Remove(keyFile)) },
		"read the TLS certificate and key: ": func() { must(t, os.WriteFile(keyFile, []byte("no key"), 0o600)) },
		"read the TLS key: ":                 func() { must(t, os.Remove(keyFile)); must(t, os.Mkdir(keyFile, 0o700)) },
	} {
		spoil()
		if err := c.Reload(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
		if got := serial(); got != 2 {
			t.Errorf("after a reload that failed the certificate is number %d", got)
		}
		must(t, os.RemoveAll(keyFile))
		must(t, os.WriteFile(keyFile, good, 0o600))
	}
	must(t, c.Reload())
}
