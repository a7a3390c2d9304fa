package main

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	rpccode "google.golang.org/genproto/googleapis/rpc/code"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/proctest"
	"patd/internal/waittest"
)

const (
	alertRules = "../../deploy/prometheus/rules.yaml"
	alertTests = "../../deploy/prometheus/rules_test.yaml"
	dashboard  = "../../deploy/grafana/patd.json"
)

// promtool runs Prometheus' own tool, which must succeed.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		proctest.Missing(t, "promtool")
		return
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Fatalf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// alert is a rule as its file has it.
type alert struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) (list []alert) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	readYAML(t, alertRules, &file)
	for _, g := range file.Groups {
		list = append(list, g.Rules...)
	}
	if len(list) < 20 {
		t.Fatalf("%s has %d alerts only", alertRules, len(list))
	}
	return list
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// expressions returns the PromQL of all panels and variables of the dashboard.
func expressions(t *testing.T) (list []string) {
	t.Helper()
	text, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Type, Title string
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("the panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			list = append(list, target.Expr)
		}
	}
	if len(list) < 20 {
		t.Fatalf("the dashboard has %d expressions only", len(list))
	}
	return list
}

// TestEachAlertFiresAndIsQuiet runs the alerts on synthetic series: each has some for which it fires, and some like
// them for which it does not.
func TestEachAlertFiresAndIsQuiet(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	promtool(t, "check", "rules", alertRules)
	promtool(t, "test", "rules", alertTests)
	var file struct {
		Tests []struct {
			Alerts []struct {
				Name string           `yaml:"alertname"`
				Want []map[string]any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	readYAML(t, alertTests, &file)
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, one := range file.Tests {
		for _, a := range one.Alerts {
			fires[a.Name], quiet[a.Name] = fires[a.Name] || len(a.Want) > 0, quiet[a.Name] || len(a.Want) == 0
		}
	}
	for _, a := range alerts(t) {
		if !fires[a.Alert] || !quiet[a.Alert] {
			t.Errorf(
				"%s: series for which %s fires: %v, is quiet: %v; it needs both",
				alertTests,
				a.Alert,
				fires[a.Alert],
				quiet[a.Alert],
			)
		}
	}
}

// TestEachAlertHasItsRunbook looks for the section that an alert names, and for sections without an alert.
func TestEachAlertHasItsRunbook(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	var sections []string
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)\n\n(?s:(.+?))(?:\n\n\* .+)`).FindAllStringSubmatch(string(text), -1) {
		sections = append(sections, m[1])
	}
	var named []string
	for _, a := range alerts(t) {
		named = append(named, a.Alert)
		if want := "docs/runbooks.md#" + strings.ToLower(
			a.Alert,
		); a.Annotations["runbook_url"] != want ||
			a.Annotations["summary"] == "" {
			t.Errorf("%s has the annotations %v, want a summary and the runbook %s", a.Alert, a.Annotations, want)
		}
		if s := a.Labels["severity"]; s != "page" && s != "ticket" {
			t.Errorf("%s has the severity %q", a.Alert, s)
		}
	}
	slices.Sort(sections)
	slices.Sort(named)
	if !slices.Equal(sections, named) {
		t.Errorf("docs/runbooks.md has sections with something to do for\n%v, and the alerts are\n%v", sections, named)
	}
}

var (
	patdMetric  = regexp.MustCompile(`\bpatd_[a-z_]+`)
	labelValues = regexp.MustCompile(`\b(code|decision)(?:=|!=|=~|!~)"([^"]+)"`)
)

// TestAlertsAndDashboardNameOnlyMetricsThatThereAre also looks at the codes and decisions that are asked for. It goes
// by docs/metrics.md, which TestPageOfMetricsHasEachMetricAndNoOther holds against a server.
func TestAlertsAndDashboardNameOnlyMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]string{}
	for _, m := range shownMetric.FindAllStringSubmatch(string(page), -1) {
		known[m[1]] = m[2]
	}
	all := expressions(t)
	for _, a := range alerts(t) {
		all = append(all, a.Expr)
	}
	for _, expr := range all {
		found := patdMetric.FindAllString(expr, -1)
		for _, m := range labelValues.FindAllStringSubmatch(expr, -1) {
			for value := range strings.SplitSeq(m[2], "|") {
				_, code := rpccode.Code_value[value]
				_, decision := patdv1.IntrospectResponse_Decision_value[value]
				if m[1] == "code" && !code || m[1] == "decision" && !decision {
					t.Errorf("no series has the %s %s: %s", m[1], value, expr)
				}
			}
		}
		for _, name := range found {
			base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
			if kind := known[base]; kind == "" || (base != name) != (kind == "histogram") {
				t.Errorf("%s is in no server, or is used otherwise than as a %s: %s", name, kind, expr)
			}
		}
		if len(found) == 0 && !strings.Contains(expr, "up{") && !strings.Contains(expr, "process_") {
			t.Errorf("no metric of patd is in %s", expr)
		}
	}
}

// TestEachPanelIsPromQL has promtool parse the expressions of the dashboard, as rules that record them.
func TestEachPanelIsPromQL(t *testing.T) {
	t.Parallel()
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	variables := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*", "$job", "patd")
	for i, expr := range expressions(t) {
		if expr = variables.Replace(expr); strings.Contains(expr, "$") {
			t.Errorf("a variable is not known: %s", expr)
		}
		rules = append(rules, rule{fmt.Sprintf("panel:%d", i), expr})
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "panels", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", written(t, "panels.yaml", string(text)))
}

var seriesLine = regexp.MustCompile(`(?m)^(patd_[a-z_]+)(?:\{(.*)\})? (\S+)$`)

// recorded returns the series of a running server, for half an hour that goes on as the time between two readings.
func recorded(t *testing.T, d *daemon, between func()) (series []map[string]string) {
	t.Helper()
	read := func() map[string]float64 {
		text := d.call(t, http.MethodGet, "/metrics", "", "").body
		found := map[string]float64{}
		for _, m := range seriesLine.FindAllStringSubmatch(text, -1) {
			v, err := strconv.ParseFloat(m[3], 64)
			if err != nil {
				t.Fatal(err)
			}
			labels := `instance="recorded"`
			if m[2] != "" {
				labels += "," + m[2]
			}
			found[m[1]+"{"+labels+"}"] = v
		}
		return found
	}
	before := read()
	between()
	for name, v := range read() {
		grows, counts := 0.0, regexp.MustCompile(`^\w+_(total|count|sum|bucket)\{`).MatchString(name)
		if counts {
			grows = v - before[name]
		}
		number := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
		values := number(v) + "+" + number(grows) + "x30"
		if math.IsInf(v, 1) {
			values = strings.TrimSpace(strings.Repeat("Inf ", 31))
		}
		series = append(series, map[string]string{"series": name, "values": values})
	}
	return append(series, map[string]string{"series": `up{job="patd",instance="recorded"}`, "values": "1x30"})
}

// wantFiring runs the alerts on recorded series.
func wantFiring(t *testing.T, series []map[string]string, want ...string) {
	t.Helper()
	rules, err := filepath.Abs(alertRules)
	if err != nil {
		t.Fatal(err)
	}
	samples := []any{}
	for _, name := range want {
		samples = append(samples, map[string]any{"labels": `{alertname="` + name + `"}`, "value": 1})
	}
	text, err := yaml.Marshal(map[string]any{
		"rule_files":          []string{rules},
		"evaluation_interval": "1m",
		"tests": []any{
			map[string]any{"interval": "1m", "input_series": series, "promql_expr_test": []any{
				map[string]any{
					// How much room the disk of this machine has is not the server's doing.
					"expr":        `count by (alertname) (ALERTS{alertstate="firing",alertname!="PatdDiskFills"})`,
					"eval_time":   "29m",
					"exp_samples": samples,
				},
			}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, "test", "rules", written(t, "recorded_test.yaml", string(text)))
}

// TestNoAlertFiresForAServerThatIsWell goes by the series of a real server, with calls.
func TestNoAlertFiresForAServerThatIsWell(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	data, admin := administer(t)
	d := serve(t, data)
	a := connect(t, d, admin)
	d.call(t, http.MethodPut, "/v1/users/alice/features", admin, `{"features": ["reports.read"]}`).
		want(t, "features", 200)
	token := a.mint(t, "alice", "well", "reports.read")
	use := func() {
		for range 20 {
			d.call(t, http.MethodPost, "/v1/introspect", admin, `{"token": "`+token+`"}`).want(t, "introspection", 200)
		}
		d.call(t, http.MethodPost, "/v1/introspect", admin, `{"token": "pat_nothing"}`).want(t, "introspection", 200)
	}
	use()
	wantFiring(t, recorded(t, d, use))
}

// TestAlertsFireForAServerWhoseSystemsAreOut goes by the series of a real server, whose source of features fails and
// whose identity provider is not there.
func TestAlertsFireForAServerWhoseSystemsAreOut(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	source := httptest.NewServer(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }),
	)
	t.Cleanup(source.Close)
	data, admin := administer(t)
	d := serve(
		t,
		data,
		"--oidc-issuer",
		"http://127.0.0.1:1/",
		"--oidc-audience",
		"patd",
		"--features-source",
		"callback",
		"--features-callback-url",
		source.URL,
		"--features-callback-key-file",
		written(t, "key", "a key of at least thirty-two bytes, for tests\n"),
	)
	waittest.Until(t, "the provider is known to be out", func() bool {
		return regexp.MustCompile(`(?m)^patd_signin_unavailable 1$`).
			MatchString(d.call(t, http.MethodGet, "/metrics", admin, "").body)
	})
	mint := func() {
		for range 3 {
			d.call(t, http.MethodPost, "/v1/users/alice/tokens", admin, `{"name": "x", "scopes": ["a"]}`).
				want(t, "a mint", 503)
		}
	}
	mint()
	wantFiring(t, recorded(t, d, mint), "PatdFeaturesFail", "PatdSignInUnavailable", "PatdUnavailable")
}
