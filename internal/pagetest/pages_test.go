package pagetest

import (
	"bytes"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// claims maps the kind of a block to the test that runs it, or compares it with the file that a test runs.
var claims = map[string]string{
	"sh tour":                   "TestTour",
	"text tour":                 "TestTour",
	"sh dev":                    "TestDevCanBePasted",
	"sh test":                   "TestTestsAreRunAsTheReadmeSays",
	"sh serve":                  "TestDeploymentCanBePasted",
	"sh call":                   "TestDeploymentCanBePasted",
	"sh completion":             "TestDeploymentCanBePasted",
	"sh cli":                    "TestDeploymentCanBePasted",
	"sh policy":                 "TestDeploymentCanBePasted",
	"sh prune":                  "TestDeploymentCanBePasted",
	"sh systemd":                "TestUnitCanBeInstalledAndEnabled",
	"yaml litestream":           "TestLitestreamCopiesTheStoreOfTheUnit",
	"sh postgres":               "TestPostgresCanBePasted",
	"sh move":                   "TestPostgresCanBePasted",
	"sh source":                 "TestSourcesCanBePasted",
	"python":                    "TestModulesOfPagesDecide",
	"js":                        "TestModulesOfPagesDecide",
	"sh renewing":               "TestUserAndTokenCommandsCanBePasted",
	"sh cancelling":             "TestUserAndTokenCommandsCanBePasted",
	"sh noticed":                "TestUserAndTokenCommandsCanBePasted",
	"sh unused":                 "TestUserAndTokenCommandsCanBePasted",
	"sh resuming":               "TestUserAndTokenCommandsCanBePasted",
	"sh selfrotating":           "TestUserAndTokenCommandsCanBePasted",
	"sh selfrotated":            "TestUserAndTokenCommandsCanBePasted",
	"sh agent":                  "TestAgentCanBePasted",
	"ini agent.service":         "TestUnitsOfTheAgentAreSound",
	"ini agent.timer":           "TestUnitsOfTheAgentAreSound",
	"yaml agent":                "TestPodOfTheAgentHasItsFlags",
	"sh offboarding":            "TestUserAndTokenCommandsCanBePasted",
	"sh signin":                 "TestSignInCanBePasted",
	"sh handoff":                "TestHandOffCanBePasted",
	"html embed":                "TestHandOffCanBePasted",
	"js express":                "TestPagesAreEmbeddedWithoutThirdPartyCookies",
	"python flask":              "TestPagesAreEmbeddedWithoutThirdPartyCookies",
	"sh envoy":                  "TestGatewaysCommandsCanBePasted",
	"sh apache":                 "TestGatewaysCommandsCanBePasted",
	"sh scanner":                "TestScannerCanBePasted",
	"yaml openapi.yaml":         "TestScopesCanBePasted",
	"sh scopes":                 "TestScopesCanBePasted",
	"python webhook":            "TestReceiversOfThePageVerifyMessages",
	"js webhook":                "TestReceiversOfThePageVerifyMessages",
	"json schema":               "TestSchemasStandOnThePage",
	"go":                        "TestPageShowsTheExample",
	"nginx":                     "TestPagesShowWhatIsTested",
	"caddyfile":                 "TestPagesShowWhatIsTested",
	"apache":                    "TestPagesShowWhatIsTested",
	"yaml config":               "TestPagesShowWhatIsTested",
	"csharp":                    "TestPagesShowWhatIsTested",
	"java Reports.java":         "TestFromThePageAboutSpringToAProtectedRoute",
	"yaml application.yaml":     "TestFromThePageAboutSpringToAProtectedRoute",
	"sh spring":                 "TestFromThePageAboutSpringToAProtectedRoute",
	"xml pom.xml":               "TestThePageAboutSpringNamesTheVersionThatIsTested",
	"python api.py":             "TestFromPagesToAProtectedRoute",
	"python site1/patdguard.py": "TestFromPagesToAProtectedRoute",
	"python site1/views.py":     "TestFromPagesToAProtectedRoute",
	"python site1/urls.py":      "TestFromPagesToAProtectedRoute",

	"ruby app/services/patd.rb":                      "TestIntrospectionInRubyAndPHPDecides",
	"ruby app/controllers/concerns/needs_scope.rb":   "TestIntrospectionInRubyAndPHPDecides",
	"ruby app/controllers/application_controller.rb": "TestIntrospectionInRubyAndPHPDecides",
	"ruby app/controllers/reports_controller.rb":     "TestIntrospectionInRubyAndPHPDecides",
	"ruby config/routes.rb":                          "TestIntrospectionInRubyAndPHPDecides",
	"php app/Services/Patd.php":                      "TestIntrospectionInRubyAndPHPDecides",
	"php app/Http/Middleware/NeedsScope.php":         "TestIntrospectionInRubyAndPHPDecides",
	"php bootstrap/app.php":                          "TestIntrospectionInRubyAndPHPDecides",
	"php routes/api.php":                             "TestIntrospectionInRubyAndPHPDecides",

	"js express.mjs": "TestFromThePagesToAProtectedRoute",
	"js fastify.mjs": "TestFromThePagesToAProtectedRoute",
}

// shown are kinds that nobody pastes: pictures and responses.
var shown = map[string]bool{"text": true, "json": true}

func TestEveryBlockIsClaimedByATest(t *testing.T) {
	tests, seen := testNames(t), map[string]bool{}
	for _, b := range Blocks(t) {
		seen[b.Kind] = true
		if claims[b.Kind] == "" && !shown[b.Kind] {
			t.Errorf("%s:%d: no test runs blocks of the kind %q", b.Page, b.Line, b.Kind)
		}
	}
	for kind, test := range claims {
		if !seen[kind] {
			t.Errorf("no page has a block of the kind %q", kind)
		}
		if !tests[test] {
			t.Errorf("%s, which should run blocks of the kind %q, does not exist", test, kind)
		}
	}
}

// testNames are the names of all tests in the repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard", "*_test.go")
	cmd.Dir = Root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	names, function := map[string]bool{}, regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(`)
	for file := range strings.Lines(string(out)) {
		text, err := os.ReadFile(path.Join(Root(t), strings.TrimSpace(file)))
		if os.IsNotExist(err) {
			continue // deleted, and not yet so in the index
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range function.FindAllSubmatch(text, -1) {
			names[string(f[1])] = true
		}
	}
	if len(names) < 100 {
		t.Fatalf("there are only %d tests", len(names))
	}
	return names
}

// TestEachPromiseNamesTheTestsThatHoldIt reads docs/guarantees.md.
func TestEachPromiseNamesTheTestsThatHoldIt(t *testing.T) {
	text, err := os.ReadFile(path.Join(Root(t), "docs/guarantees.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests, promises := testNames(t), 0
	for _, p := range strings.Split(string(text), "\n* ")[1:] {
		p, _, _ = strings.Cut(p, "\n\n")
		promises++
		_, held, ok := strings.Cut(p, "Held by ")
		names := regexp.MustCompile("`(Test[A-Za-z0-9_]+)`").FindAllStringSubmatch(held, -1)
		if !ok || len(names) == 0 {
			t.Errorf("no test holds this promise; end it with \"Held by `TestName`.\":\n* %s", p)
		}
		for _, n := range names {
			if !tests[n[1]] {
				t.Errorf("%s does not exist; it should hold\n* %s", n[1], p)
			}
		}
	}
	if promises < 40 {
		t.Errorf("there are only %d promises", promises)
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinksBetweenPagesLeadSomewhere follows the links within the repository, to their headings too.
func TestLinksBetweenPagesLeadSomewhere(t *testing.T) {
	for _, p := range Pages(t) {
		for _, m := range link.FindAllStringSubmatch(prose(p.Text), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			name, anchor, _ := strings.Cut(m[1], "#")
			target := path.Join(Root(t), path.Dir(p.Name), name)
			if name == "" {
				target = path.Join(Root(t), p.Name)
			}
			text, err := os.ReadFile(target)
			if stat, e := os.Stat(target); e == nil && stat.IsDir() {
				err = nil
			}
			if err != nil {
				t.Errorf("%s links to %s: %v", p.Name, m[1], err)
			} else if anchor != "" && !anchors(string(text))[anchor] {
				t.Errorf("%s links to %s, which has no such heading", p.Name, m[1])
			}
		}
	}
}

// prose is a page without its blocks.
func prose(text string) string {
	return regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(text, "")
}

// anchors are the headings of a page as GitHub spells them in links.
func anchors(text string) map[string]bool {
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(prose(text), -1) {
		anchor := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		found[strings.ReplaceAll(anchor, " ", "-")] = true
	}
	return found
}

// TestEveryPageIsReachedInTwoClicks starts at README.md.
func TestEveryPageIsReachedInTwoClicks(t *testing.T) {
	pages := map[string]string{}
	for _, p := range Pages(t) {
		pages[p.Name] = prose(p.Text)
	}
	reached := map[string]bool{"README.md": true}
	for range 2 {
		next := map[string]bool{}
		for from := range reached {
			next[from] = true
			for _, m := range link.FindAllStringSubmatch(pages[from], -1) {
				name, _, _ := strings.Cut(m[1], "#")
				next[path.Join(path.Dir(from), name)] = true
			}
		}
		reached = next
	}
	for name := range pages {
		if !reached[name] {
			t.Errorf("%s is more than two clicks from README.md", name)
		}
	}
	if n := bytes.Count([]byte(pages["README.md"]), []byte("\n")); n > 200 {
		t.Errorf("README.md has %d lines; move what is more than 200 into docs/", n)
	}
}

// TestLinesOfPagesFitTheirWidth holds prose to 120 columns. Tables, which Markdown cannot break, and blocks, which are
// other files' text, are as wide as they are.
func TestLinesOfPagesFitTheirWidth(t *testing.T) {
	for _, p := range Pages(t) {
		for line := range strings.Lines(prose(p.Text)) {
			line = strings.TrimSuffix(line, "\n")
			if utf8.RuneCountInString(line) > 120 && !strings.HasPrefix(line, "|") {
				t.Errorf("%s: more than 120 columns: %s", p.Name, line)
			}
		}
	}
}
