package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const root = "../.."

// TestTheGeneratedClientsAreCurrent compares the files with what the document says now.
func TestTheGeneratedClientsAreCurrent(t *testing.T) {
	t.Parallel()
	s, err := read(filepath.Join(root, "gen", "openapi", "openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	for dir, make := range targets {
		want := make(s)
		found, err := os.ReadDir(filepath.Join(root, filepath.FromSlash(dir)))
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != len(want) {
			t.Errorf("%s has %d files, and should have %d: go run ./sdk/generate", dir, len(found), len(want))
		}
		for name, text := range want {
			got, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(dir), name))
			if err != nil || string(got) != text {
				t.Errorf("%s/%s is not current: go run ./sdk/generate (%v)", dir, name, err)
			}
		}
	}
}

// TestEveryOperationHasAMethod names those that have none.
func TestEveryOperationHasAMethod(t *testing.T) {
	t.Parallel()
	s, err := read(filepath.Join(root, "gen", "openapi", "openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"createSCIMUser", "deleteSCIMUser", "exchangeToken", "forwardAuth", "getKeys", "getLiveness", "getMetrics",
		"getOpenAPI", "getReadiness", "getResourceMetadata", "getSCIMServiceProviderConfig", "getSCIMUser",
		"getServerMetadata", "introspectOAuth", "listSCIMResourceTypes", "listSCIMSchemas", "listSCIMUsers",
		"patchSCIMUser", "replaceSCIMUser", "reportGitHubLeaks", "revokeOAuth", "searchSCIMUsers", "takeSecurityEvent",
		"watchInvalidations",
	}
	if got := slices.Sorted(maps.Keys(s.leftOut)); !slices.Equal(got, want) {
		t.Errorf("without a method: %q, want %q", got, want)
	}
	unknown := maps.Clone(repeatable)
	for _, op := range s.operations {
		if repeatable[op.id] && op.key {
			t.Errorf("%s is repeated with its key", op.id)
		}
		delete(unknown, op.id)
	}
	if len(unknown) > 0 {
		t.Errorf("no such operations: %v", unknown)
	}
}
