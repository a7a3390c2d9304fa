package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"patd/cmd/patd/internal/cli"
	"patd/cmd/patd/internal/cli/config"
	"patd/cmd/patd/internal/cli/remote"
	"patd/internal/dbtest"
	"patd/internal/waittest"
)

// symptom is a finding that the doctor must have, and how the patient gets it.
type symptom struct {
	name         string
	check, level string
	// of is the format of the finding in the source, found a part of its text, and do its advice.
	of, found, do string
	give          func(t *testing.T, p *patient)
}

// patient is a store, and how the doctor is called to it.
type patient struct {
	data string // directory of a store in a file
	args []string
	env  map[string]string
	now  func() time.Time
	// look examines what no store here can be brought to; nil: the command does.
	look func(d *doctor)
}

func newPatient(data string) *patient {
	return &patient{data: data, args: []string{"--data-dir", data}, env: map[string]string{}, now: time.Now}
}

// run runs a command in this process.
func (p *patient) run(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c := &cli.Command{Now: p.now, Version: version(), Shared: remote.ConnectionFlags, System: cli.System{
		Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
		Getenv: func(name string) (string, bool) { v, ok := p.env[name]; return v, ok },
	}}
	root := newRoot(c)
	root.SetArgs(args)
	root.SetIn(c.Stdin)
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	err = root.ExecuteContext(t.Context())
	return stdout.String(), err
}

// examine returns what the doctor finds, and holds that it ends as that says.
func (p *patient) examine(t *testing.T) []finding {
	t.Helper()
	if p.look != nil {
		d := &doctor{c: &cli.Command{Now: p.now}, s: &config.Settings{}}
		p.look(d)
		return d.found
	}
	out, err := p.run(t, append([]string{"doctor", "--json"}, p.args...)...)
	var said struct{ Findings []finding }
	if jsonErr := json.Unmarshal([]byte(out), &said); jsonErr != nil {
		t.Fatalf("%v, %v: %s", jsonErr, err, out)
	}
	worst := levelOK
	for _, f := range said.Findings {
		if f.Level == levelProblem || f.Level == levelWarning && worst == levelOK {
			worst = f.Level
		}
		if (f.Level == levelOK) != (f.Do == "") {
			t.Errorf("%+v: what is not ok has an advice, and nothing else", f)
		}
	}
	var exit *cli.ExitError
	switch warned := errors.As(err, &exit) && exit.Code == exitWarnings; {
	case worst == levelOK && err != nil,
		worst == levelWarning && !warned,
		worst == levelProblem && (err == nil || warned):
		t.Errorf("the worst is %s, and the command ends with %v", worst, err)
	}
	return said.Findings
}

// shows gives a patient the symptom, which the doctor must find.
func (s symptom) shows(t *testing.T, p *patient) {
	t.Helper()
	s.give(t, p)
	text := formatPattern(s.of)
	found := p.examine(t)
	for _, f := range found {
		if f.Check == s.check && f.Level == s.level && s.advises(f.Do) && strings.Contains(f.Found, s.found) &&
			text.MatchString(f.Found) {
			return
		}
	}
	t.Errorf("there is no %s of %s %q with the advice %q in %+v", s.level, s.check, s.found, s.do, found)
}

// advises reports whether an advice is that of a symptom, which may end before the name of a file.
func (s symptom) advises(do string) bool {
	return do == s.do || strings.HasSuffix(s.do, " ") && strings.HasPrefix(do, s.do+"/")
}

// well holds that the doctor finds nothing to be done, but about this machine's clock and disk.
func (p *patient) well(t *testing.T, checks ...string) {
	t.Helper()
	looked := map[string]bool{}
	for _, f := range p.examine(t) {
		looked[f.Check] = true
		machine := f.Check == "disk" || f.Check == "clock" && strings.Contains(f.Found, "as far as the kernel knows")
		if f.Level != levelOK && !machine {
			t.Errorf("a patient who is well has %+v", f)
		}
	}
	for _, c := range checks {
		if !looked[c] {
			t.Errorf("the doctor did not look at %s", c)
		}
	}
}

var verb = regexp.MustCompile(`%[#+0-9]*[a-z]`)

// formatPattern matches what a format makes.
func formatPattern(format string) *regexp.Regexp {
	parts := verb.Split(format, -1)
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(part)
	}
	return regexp.MustCompile(`(?s)^` + strings.Join(parts, `.*`) + `$`)
}

// source is a call of the doctor's that adds a finding.
type source struct {
	at, check, level, of string
	do                   *regexp.Regexp
}

// sources reads the calls that add a warning or a problem, out of the doctor's own source.
func sources(t *testing.T) (found []source) {
	t.Helper()
	files, err := filepath.Glob("doctor*.go")
	if err != nil {
		t.Fatal(err)
	}
	set, made := token.NewFileSet(), 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				return n.Name.Name != "ok" // which adds what is well
			case *ast.CompositeLit:
				if id, ok := n.Type.(*ast.Ident); ok && id.Name == "finding" {
					made++
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "add" && len(n.Args) >= 4 {
					found = append(found, source{
						at: set.Position(n.Pos()).
							String(),
						check: literal(t, n.Args[0]),
						level: levelNamed(t, n.Args[1]),
						do:    regexp.MustCompile(`^` + advicePattern(n.Args[2]) + `$`),
						of:    literal(t, n.Args[3]),
					})
				}
			}
			return true
		})
	}
	if made != 1 {
		t.Errorf("%d places make a finding; add alone is to", made)
	}
	return found
}

func literal(t *testing.T, e ast.Expr) string {
	t.Helper()
	lit, ok := e.(*ast.BasicLit)
	if !ok {
		t.Fatalf("an argument of add at %d is no literal text", e.Pos())
	}
	text, err := strconv.Unquote(lit.Value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func levelNamed(t *testing.T, e ast.Expr) string {
	t.Helper()
	if id, ok := e.(*ast.Ident); ok {
		if level := map[string]string{"levelWarning": levelWarning, "levelProblem": levelProblem}[id.Name]; level != "" {
			return level
		}
	}
	t.Fatalf("an argument of add at %d is no level", e.Pos())
	return ""
}

// advicePattern matches an advice: its literal parts, and anything in the place of others.
func advicePattern(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil {
			return regexp.QuoteMeta(text)
		}
	case *ast.BinaryExpr:
		return advicePattern(e.X) + advicePattern(e.Y)
	}
	return `.+`
}

// TestEveryFindingOfTheDoctorIsTested holds that each warning and each problem in the doctor's source has a symptom in
// the tables of these tests, and each symptom a place in the source.
func TestEveryFindingOfTheDoctorIsTested(t *testing.T) {
	t.Parallel()
	symptoms := append(append(fileSymptoms(), otherSymptoms()...), postgresSymptoms(nil)...)
	used := make([]bool, len(symptoms))
	all := sources(t)
	for _, from := range all {
		tested := false
		for i, s := range symptoms {
			if s.check == from.check && s.level == from.level && s.of == from.of &&
				(from.do.MatchString(s.do) || from.do.MatchString(s.do+"/") && strings.HasSuffix(s.do, " ")) {
				used[i], tested = true, true
			}
		}
		if !tested {
			t.Errorf(
				"%s: no test has this %s of %s: %q, with the advice %s",
				from.at,
				from.level,
				from.check,
				from.of,
				from.do,
			)
		}
	}
	for i, s := range symptoms {
		if !used[i] {
			t.Errorf("the doctor cannot find what %q shows", s.name)
		}
	}
	if len(all) < 30 {
		t.Errorf("%d findings were read from the source", len(all))
	}
}

// TestTheDoctorFindsWhatAFileHas gives each symptom to a copy of a store that is well.
func TestTheDoctorFindsWhatAFileHas(t *testing.T) {
	t.Parallel()
	well := newPatient(filepath.Join(t.TempDir(), "data"))
	if _, err := well.run(
		t,
		"service",
		"create",
		"ci",
		"--permission",
		"introspect",
		"--data-dir",
		well.data,
	); err != nil {
		t.Fatal(err)
	}
	copied := func(t *testing.T) *patient {
		t.Helper()
		p := newPatient(filepath.Join(t.TempDir(), "data"))
		mustDo(t, os.CopyFS(p.data, os.DirFS(well.data)))
		mustDo(t, os.Chmod(p.data, 0o700))
		for _, name := range []string{"patd.db", "hash.key"} {
			mustDo(t, os.Chmod(p.file(name), 0o600))
		}
		return p
	}
	t.Run("none", func(t *testing.T) {
		p := copied(t)
		issuer("")(t, p)
		query(`SELECT feature FROM held WHERE who = $1`)(t, p)
		p.well(t, "configuration", "files", "clock", "database", "disk", "versions", "provider", "features")
	})
	for _, s := range append(fileSymptoms(), otherSymptoms()...) {
		t.Run(s.name, func(t *testing.T) { s.shows(t, copied(t)) })
	}
}

// TestTheDoctorFindsWhatAPostgresHas gives each symptom to one server, without a standby and with one.
func TestTheDoctorFindsWhatAPostgresHas(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	t.Parallel()
	server := dbtest.Postgres(t, "fsync=on", "full_page_writes=on", "max_connections=40")
	h := &hospital{
		server: server,
		url:    server.PostgresURL(server.Password),
		key:    filepath.Join(t.TempDir(), "hash.key"),
	}
	admitted := func(t *testing.T) *patient {
		t.Helper()
		p := newPatient("")
		h.admits(p, server.Addr())
		return p
	}
	if _, err := admitted(t).run(t, "migrate", "--hash-key-file", h.key); err != nil {
		t.Fatal(err)
	}
	lonely := lonelySymptoms(h)
	for _, s := range lonely {
		t.Run(s.name, func(t *testing.T) { s.shows(t, admitted(t)) })
	}
	dbtest.Standby(t, server, "second")
	for _, s := range postgresSymptoms(h)[len(lonely):] {
		t.Run(s.name, func(t *testing.T) { s.shows(t, admitted(t)) })
	}
	t.Run("none", func(t *testing.T) {
		h.synchronous(t, "second")
		waittest.Until(t, "the standby is synchronous", func() bool {
			var state string
			err := server.Admin().QueryRow(`SELECT sync_state FROM pg_stat_replication`).Scan(&state)
			return err == nil && state == "sync"
		})
		admitted(t).well(t, "configuration", "files", "clock", "database", "replication", "versions")
	})
}
