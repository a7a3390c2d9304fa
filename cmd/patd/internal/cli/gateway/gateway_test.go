package gateway_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patd/client/routes"
	"patd/cmd/patd/internal/cli/gateway"
)

var update = flag.Bool("update", false, "write the configurations anew")

// TestConfigurations compares with files; internal/gatewaytest runs such configurations.
func TestConfigurations(t *testing.T) {
	table, err := routes.New([]routes.Route{
		{Method: "GET", Path: "/reports/{id}", Scopes: []string{"reports.read"}},
		{Method: "DELETE", Path: "/reports/{id}", Scopes: []string{"reports.write", "reports+delete"}},
		{Method: "GET", Path: "/reports/latest.json", Scopes: []string{"reports.read"}},
		{Method: "PUT", Path: "/reports/latest.json"},
		{Method: "POST", Path: "/reports/{id}:publish", Scopes: []string{"$host"}},
		{Method: "GET", Path: "/closed"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range gateway.Names() {
		got, err := gateway.Configuration(name, table)
		if strings.HasPrefix(name, "apache") {
			if err == nil || !strings.Contains(err.Error(), "cannot be written in Apache's configuration") {
				t.Errorf("%s: a scope with a plus sign: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name+".golden")
		if *update {
			if err := os.WriteFile(file, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s: run the test with -update, and read what changes:\n%s", name, diff)
		}
	}
	if _, err := gateway.Configuration("squid", table); err == nil {
		t.Error("there is a configuration for squid")
	}
}
