package client_test

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"patd/client"
	"patd/internal/pagetest"
)

// serveReports is the program of docs/client.md.
func serveReports(mux *http.ServeMux, reports http.Handler) error {
	conn, err := client.Dial("patd.internal:9090", client.ServiceToken(client.TokenFile("gateway.token")))
	if err != nil {
		return err
	}
	defer conn.Close()
	verifier, err := client.New(conn, client.Config{Audience: "reports"})
	if err != nil {
		return err
	}
	defer verifier.Close()
	guard := client.NewGuard(verifier, client.HTTPConfig{})
	mux.Handle("/reports", guard.Require("reports.read")(reports))
	return http.ListenAndServe("127.0.0.1:3000", mux)
}

// TestPageShowsTheExample holds that each block of Go on a page is in this file, so that it compiles. What the calls in it do
// the examples show.
func TestPageShowsTheExample(t *testing.T) {
	_ = serveReports // it would go on serving
	text, err := os.ReadFile("page_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range pagetest.Blocks(t, "go") {
		indented := "\t" + strings.ReplaceAll(strings.TrimSuffix(b.Text, "\n"), "\n", "\n\t") + "\n"
		if !strings.Contains(string(text), "{\n"+indented+"}\n") {
			t.Errorf("%s:%d is not what is compiled here", b.Page, b.Line)
		}
	}
}
