package client_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"patd/client"
	"patd/client/manage"
	"patd/client/tokensource"
	patdv1 "patd/gen/patd/v1"
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

// fetchReports is the other program of docs/client.md.
func fetchReports(ctx context.Context) error {
	api, err := tokensource.REST("https://patd.example.com", nil)
	if err != nil {
		return err
	}
	source, err := tokensource.New(tokensource.Config{API: api, Store: tokensource.NewFile("/var/lib/export/token")})
	if err != nil {
		return err
	}
	go func() { _ = source.Run(ctx) }()
	reports := &http.Client{Transport: source.RoundTripper(nil, "https://reports.example.com")}
	resp, err := reports.Get("https://reports.example.com/v1/reports")
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// createToken is the program of docs/client.md that manages tokens.
func createToken(ctx context.Context, show func(string)) error {
	conn, err := client.Dial("patd.internal:9090", client.ServiceToken(client.TokenFile("settings.token")))
	if err != nil {
		return err
	}
	defer conn.Close()
	patd := manage.New(conn, manage.Config{})
	made, err := patd.Tokens.CreateToken(
		ctx,
		&patdv1.CreateTokenRequest{User: "alice", Name: "ci", Scopes: []string{"reports.read"}},
	)
	if errors.Is(err, manage.ScopeNotHeld) {
		return errors.New("you do not have reports")
	} else if err != nil {
		return err
	}
	show(made.GetSecret())
	for token, err := range patd.EachToken(ctx, &patdv1.ListTokensRequest{User: "alice"}) {
		if err != nil {
			return err
		}
		show(token.GetName())
	}
	return nil
}

// TestPageShowsTheExample holds that each block of Go on a page is in this file, so that it compiles. What the calls in
// it do the examples show.
func TestPageShowsTheExample(t *testing.T) {
	_, _, _ = serveReports, fetchReports, createToken // the one would go on serving, the others need a network
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
