package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/pagetest"
)

// TestIntrospectionInRubyAndPHPDecides runs the parts of docs/frameworks/rails.md and laravel.md that ask patd, without
// the frameworks, and has the languages parse the rest.
func TestIntrospectionInRubyAndPHPDecides(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	t.Parallel()
	for _, m := range []struct{ language, parse, code string }{
		{"ruby", "ruby -c", `require "./app/services/patd"
begin
  answer = Patd.introspect(ARGV[0], ["a"], "127.0.0.1")
  puts "#{answer["decision"]} #{answer["user"]}".strip
rescue Patd::Unavailable => e
  puts "unavailable"
  warn e.message
end
`},
		{"php", "php -l", `<?php
require './app/Services/Patd.php';
try {
    $answer = App\Services\Patd::introspect($argv[1], ['a'], '127.0.0.1');
    echo trim($answer['decision'] . ' ' . ($answer['user'] ?? ''));
} catch (RuntimeException $e) {
    echo 'unavailable';
    fwrite(STDERR, $e->getMessage());
}
`},
	} {
		t.Run(m.language, func(t *testing.T) {
			t.Parallel()
			k := newDesk(t, m.language)
			files := 0
			for _, b := range pagetest.Blocks(t) {
				name, ok := strings.CutPrefix(b.Kind, m.language+" ")
				if !ok {
					continue
				}
				files++
				if err := os.MkdirAll(filepath.Dir(filepath.Join(k.dir, name)), 0o700); err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(k.dir, name), b.Text)
				k.paste(t, m.parse+" "+name)
			}
			if files < 4 {
				t.Fatalf("there are only %d files", files)
			}
			data, admin := administer(t)
			d := serve(t, data)
			a := connect(t, d, admin)
			if _, err := a.users.SetUserFeatures(
				t.Context(),
				&patdv1.SetUserFeaturesRequest{User: "alice", Features: []string{"a", "b"}},
			); err != nil {
				t.Fatal(err)
			}
			good := a.mint(t, "alice", "good", "a")
			write(t, filepath.Join(k.dir, "decide"), m.code)
			decide := func(why, url, secret, want string) {
				t.Helper()
				cmd := k.bash(t, m.language+` decide "$SECRET"`)
				cmd.Env = append(
					cmd.Env,
					"PATD_URL="+url,
					"PATD_TOKEN_FILE="+written(t, "service.token", admin),
					"SECRET="+secret,
				)
				var said strings.Builder
				cmd.Stderr = &said
				out, err := cmd.Output()
				if got := strings.TrimSpace(string(out)); err != nil || got != want {
					t.Errorf("%s: %s, %v, want %s; it says %s", why, got, err, want, &said)
				}
				if secrets.MatchString(said.String()) {
					t.Errorf("%s: it says a secret", why)
				}
			}
			decide("a good token", d.HTTP, good, "ALLOW alice")
			decide("one without the scope", d.HTTP, a.mint(t, "alice", "other", "b"), "INSUFFICIENT_SCOPE alice")
			decide("garbage", d.HTTP, "pat_x", "NOT_FOUND")
			decide("what is no token", d.HTTP, "\xff\n, \"x", "NOT_FOUND")
			for why, answer := range map[string]func(w http.ResponseWriter){
				"another status": func(w http.ResponseWriter) {
					w.WriteHeader(http.StatusServiceUnavailable)
					_, _ = io.WriteString(w, `{"decision": "ALLOW"}`)
				},
				"a redirect":  func(w http.ResponseWriter) { w.Header().Set("Location", d.HTTP); w.WriteHeader(http.StatusFound) },
				"a page":      func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>") },
				"a list":      func(w http.ResponseWriter) { _, _ = io.WriteString(w, "[]") },
				"no decision": func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"active": true, "decision": true}`) },
			} {
				other := httptest.NewServer(
					http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }),
				)
				decide(why, other.URL, good, "unavailable")
				other.Close()
			}
			if err := d.Stop(); err != nil {
				t.Fatal(err)
			}
			decide("without patd", d.HTTP, good, "unavailable")
		})
	}
}
