package routes_test

import (
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"patd/client/routes"
)

// vectors are those of the libraries of all languages.
type vectors struct {
	Table    json.RawMessage
	Requests []struct {
		Why, Method, Path, Decoded string
		Scopes                     []string
	}
	Bad []struct {
		Why   string
		Table json.RawMessage
	}
}

func read(t testing.TB) (v vectors) {
	t.Helper()
	text, err := os.ReadFile("../../sdk/conformance/routes.json")
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Requests) < 60 || len(v.Bad) < 40 {
		t.Fatalf("there are only %d requests and %d tables", len(v.Requests), len(v.Bad))
	}
	return v
}

func TestATableOpensWhatItListsAndNothingElse(t *testing.T) {
	v := read(t)
	table, err := routes.Parse(v.Table)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range v.Requests {
		if r.Decoded == "only" { // a path that a server has decoded, which Go's does not
			continue
		}
		scopes, ok := table.Find(r.Method, r.Path)
		if ok != (r.Scopes != nil) || ok && !slices.Equal(scopes, r.Scopes) {
			t.Errorf("%s: %s %q: %q %v, want %q", r.Why, r.Method, r.Path, scopes, ok, r.Scopes)
		}
	}
}

func TestATableThatIsNotUnderstoodIsRefused(t *testing.T) {
	for _, b := range read(t).Bad {
		if _, err := routes.Parse(b.Table); err == nil {
			t.Errorf("%s: %s is read", b.Why, b.Table)
		}
	}
	for _, text := range []string{"", "{", "null", `{"version":1,"routes":[]} x`, `{"version":1,"routes":[]} {}`} {
		if _, err := routes.Parse([]byte(text)); err == nil {
			t.Errorf("%q is read", text)
		}
	}
	if _, err := routes.Parse(make([]byte, routes.MaxSize+1)); err == nil {
		t.Error("a table may be of any size")
	}
}

func TestATableIsReadAsItWasWritten(t *testing.T) {
	table, err := routes.Parse(read(t).Table)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(table)
	if err != nil {
		t.Fatal(err)
	}
	again, err := routes.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(table.Routes(), again.Routes()); diff != "" {
		t.Error(diff)
	}
}

func TestTheZeroTableIsClosed(t *testing.T) {
	if _, ok := new(routes.Table).Find("GET", "/"); ok {
		t.Error("a request passes")
	}
}

// TestTheOrderOfRoutesDoesNotMatter: a table is a set.
func TestTheOrderOfRoutesDoesNotMatter(t *testing.T) {
	v := read(t)
	table, err := routes.Parse(v.Table)
	if err != nil {
		t.Fatal(err)
	}
	all := table.Routes()
	rapid.Check(t, func(t *rapid.T) {
		shuffled, err := routes.New(rapid.Permutation(all).Draw(t, "routes"))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range v.Requests {
			want, open := table.Find(r.Method, r.Path)
			if got, ok := shuffled.Find(r.Method, r.Path); ok != open || !slices.Equal(got, want) {
				t.Fatalf("%s %q: %q %v, want %q %v", r.Method, r.Path, got, ok, want, open)
			}
		}
	})
}

// FuzzTable: whatever is read opens no request that it does not list.
func FuzzTable(f *testing.F) {
	v := read(f)
	f.Add([]byte(v.Table), "GET", "/reports/7")
	for _, b := range v.Bad {
		f.Add([]byte(b.Table), "GET", "/x")
	}
	f.Fuzz(func(t *testing.T, text []byte, method, path string) {
		table, err := routes.Parse(text)
		if err != nil {
			return
		}
		scopes, ok := table.Find(method, path)
		listed := slices.ContainsFunc(table.Routes(), func(r routes.Route) bool {
			return r.Method == method && slices.Equal(r.Scopes, scopes)
		})
		if ok && (len(scopes) == 0 || !listed) {
			t.Errorf("%s %q is open by %q", method, path, scopes)
		}
		for _, r := range table.Routes() { // a template without parameters is a path
			if p, err := routes.ParsePath(
				r.Path,
			); err != nil ||
				slices.ContainsFunc(p.Segments, func(s routes.Segment) bool { return s.Param }) {
				continue
			}
			if got, ok := table.Find(
				r.Method,
				r.Path,
			); ok != (len(r.Scopes) > 0) ||
				ok && !slices.Equal(got, r.Scopes) {
				t.Errorf("%s %s needs %q, and is listed with %q", r.Method, r.Path, got, r.Scopes)
			}
		}
	})
}
