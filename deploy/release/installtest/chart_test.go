package installtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const chartDir = "../../chart"

// values reads values from YAML.
func values(t *testing.T, text string) map[string]any {
	t.Helper()
	out := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// cases are the main values of the chart.
var cases = map[string]string{
	"one server in plain text": "tls: {insecure: true}",
	"one server with TLS":      "{issuer: 'https://patd.example.com', tls: {existingSecret: patd-tls}, hashKey: {existingSecret: keys}, sqlite: {persistence: {existingClaim: mine}}}",
	"several servers": `
store: postgresql
replicas: 3
image: {repository: registry.example.com/patd, digest: 'sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'}
imagePullSecrets: [{name: pull}]
postgresql:
  url: postgres://patd@db.example.com:5432/patd?sslrootcert=/etc/patd/database-ca/ca.crt
  passwordSecret: {name: patd-database}
  caSecret: {name: database-ca}
hashKey: {existingSecret: patd-keys}
tls: {existingSecret: patd-tls}
issuer: https://patd.example.com
config: {oidc-issuer: ['https://login.example.com'], oidc-audience: [patd], max-ttl: 90d, reflection: false, max-tokens-per-user: 10}
env: [{name: GOMEMLIMIT, value: 900MiB}]
volumes: [{name: ca, configMap: {name: ca}}]
volumeMounts: [{name: ca, mountPath: /etc/ca}]
service: {type: LoadBalancer, annotations: {example.com/internal: 'true'}}
networkPolicy:
  from: [{namespaceSelector: {matchLabels: {team: api}}}]
  metricsFrom: [{namespaceSelector: {matchLabels: {name: monitoring}}}]
  egress: [{ports: [{port: 5432}]}, {ports: [{port: 53, protocol: UDP}]}]
metrics: {serviceMonitor: {enabled: true, labels: {release: prometheus}}}
podAnnotations: {a: b}
podLabels: {c: d}
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: k, operator: Exists}]
affinity: {nodeAffinity: {}}
priorityClassName: high
`,
}

// objects are what a release consists of.
type objects struct {
	all        []map[string]any
	deployment *appsv1.Deployment
	migration  *batchv1.Job
	config     *corev1.ConfigMap
	claim      *corev1.PersistentVolumeClaim
	disruption *policyv1.PodDisruptionBudget
	network    *networkingv1.NetworkPolicy
	monitor    map[string]any
}

// render is helm template: the chart with values, which it first checks against values.schema.json.
func render(given map[string]any) (map[string]string, error) {
	chart, err := loader.LoadDir(chartDir)
	if err != nil {
		return nil, err
	}
	release := chartutil.ReleaseOptions{Name: "prod", Namespace: "auth", Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(chart, given, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(chart, all)
}

// decode reads the rendered objects. A field that the API does not have is an error.
func decode(t *testing.T, files map[string]string) (out objects) {
	t.Helper()
	for name, text := range files {
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		for _, doc := range strings.Split(text, "\n---\n") {
			if strings.TrimSpace(doc) == "" {
				continue
			}
			var object map[string]any
			if err := yaml.UnmarshalStrict([]byte(doc), &object); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, doc)
			}
			if object == nil { // a comment
				continue
			}
			out.all = append(out.all, object)
			var into any
			switch kind := object["kind"]; kind {
			case "Deployment":
				out.deployment = &appsv1.Deployment{}
				into = out.deployment
			case "Job":
				out.migration = &batchv1.Job{}
				into = out.migration
			case "ConfigMap":
				out.config = &corev1.ConfigMap{}
				into = out.config
			case "PersistentVolumeClaim":
				out.claim = &corev1.PersistentVolumeClaim{}
				into = out.claim
			case "PodDisruptionBudget":
				out.disruption = &policyv1.PodDisruptionBudget{}
				into = out.disruption
			case "NetworkPolicy":
				out.network = &networkingv1.NetworkPolicy{}
				into = out.network
			case "Service":
				into = &corev1.Service{}
			case "ServiceAccount":
				into = &corev1.ServiceAccount{}
			case "ServiceMonitor":
				out.monitor = object
				continue
			default:
				t.Fatalf("%s has the kind %v", name, kind)
			}
			if err := yaml.UnmarshalStrict([]byte(doc), into); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	return out
}

// TestChartIsSound lints the chart and renders it for its main values. All that is rendered must be of the API's
// schemas.
func TestChartIsSound(t *testing.T) {
	t.Parallel()
	var rendered []map[string]any
	for name, text := range cases {
		given := values(t, text)
		linted := lint.All(chartDir, given, "auth", true)
		for _, m := range linted.Messages {
			if m.Severity > support.InfoSev {
				t.Errorf("%s: %v", name, m)
			}
		}
		files, err := render(given)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		rendered = append(rendered, decode(t, files).all...)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		missing(t, "node")
	}
	if _, err := os.Stat("testdata/kubernetes/node_modules/kubernetes-models"); err != nil {
		missing(t, "what npm ci installs in testdata/kubernetes")
	}
	validate := func(what []map[string]any) (string, error) {
		text, err := json.Marshal(what)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(node, "validate.mjs")
		cmd.Dir, cmd.Stdin = "testdata/kubernetes", bytes.NewReader(text)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := validate(rendered); err != nil {
		t.Errorf("not of the schemas: %v\n%s", err, out)
	}
	// The validators find what is wrong.
	if out, err := validate(
		[]map[string]any{
			{"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": map[string]any{"selector": "all"}},
		},
	); err == nil {
		t.Errorf("a selector that is no object passes: %s", out)
	}
}

// TestChartRunsOneServerOnAFile holds what the chart makes of SQLite.
func TestChartRunsOneServerOnAFile(t *testing.T) {
	t.Parallel()
	o := decodeCase(t, "one server in plain text")
	if d := o.deployment.Spec; *d.Replicas != 1 || d.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		t.Errorf("%d servers, replaced by %s", *d.Replicas, d.Strategy.Type)
	}
	if o.claim == nil || o.claim.Annotations["helm.sh/resource-policy"] != "keep" || o.migration != nil ||
		o.disruption != nil ||
		o.monitor != nil {
		t.Errorf("claim %v, migration %v, budget %v, monitor %v", o.claim, o.migration, o.disruption, o.monitor)
	}
	hardened(t, o.deployment.Spec.Template.Spec)
	o = decodeCase(t, "one server with TLS")
	if o.claim != nil {
		t.Error("a claim is made beside the one that exists")
	}
	if probe := o.deployment.Spec.Template.Spec.Containers[0].ReadinessProbe.HTTPGet; probe.Scheme != corev1.URISchemeHTTPS ||
		probe.Path != "/readyz" {
		t.Errorf("the probe is %v", probe)
	}
}

// TestChartRunsSeveralServersOnPostgreSQL holds what the chart makes of PostgreSQL.
func TestChartRunsSeveralServersOnPostgreSQL(t *testing.T) {
	t.Parallel()
	o := decodeCase(t, "several servers")
	d := o.deployment.Spec
	if *d.Replicas != 3 || d.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 || o.claim != nil {
		t.Errorf("%d servers, %v, claim %v", *d.Replicas, d.Strategy, o.claim)
	}
	if o.disruption == nil || o.disruption.Spec.MaxUnavailable.IntValue() != 1 {
		t.Errorf("budget %v", o.disruption)
	}
	if m := o.migration; m == nil || m.Annotations["helm.sh/hook"] != "pre-install,pre-upgrade" ||
		strings.Join(m.Spec.Template.Spec.Containers[0].Args, " ") != "migrate" {
		t.Errorf("migration %v", m)
	}
	if len(o.network.Spec.Ingress) != 2 || len(o.network.Spec.Egress) != 2 || len(o.network.Spec.PolicyTypes) != 2 ||
		o.monitor == nil {
		t.Errorf("network %v, monitor %v", o.network.Spec, o.monitor)
	}
	for _, pod := range []corev1.PodSpec{d.Template.Spec, o.migration.Spec.Template.Spec} {
		hardened(t, pod)
		// Secrets by reference, as whole volumes: a subPath would never change.
		secrets := 0
		for _, v := range pod.Volumes {
			if v.Secret != nil {
				secrets++
			}
		}
		if secrets < 3 {
			t.Errorf("only %d secrets are mounted", secrets)
		}
		for _, m := range pod.Containers[0].VolumeMounts {
			if m.SubPath != "" {
				t.Errorf("%s is mounted by subPath", m.Name)
			}
		}
		for _, e := range pod.Containers[0].Env {
			if e.ValueFrom != nil {
				t.Errorf("%s is a secret in a variable", e.Name)
			}
		}
	}
	if grace := *d.Template.Spec.TerminationGracePeriodSeconds; grace <= 25 {
		t.Errorf("a pod has %d s to end, no longer than it drains", grace)
	}
}

func decodeCase(t *testing.T, name string) objects {
	t.Helper()
	files, err := render(values(t, cases[name]))
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, files)
}

// hardened checks that a pod is of the restricted Pod Security Standard, with a root that cannot be written to.
func hardened(t *testing.T, pod corev1.PodSpec) {
	t.Helper()
	s, c := pod.SecurityContext, pod.Containers[0].SecurityContext
	if !*s.RunAsNonRoot || *s.RunAsUser != 65532 || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		*pod.AutomountServiceAccountToken {
		t.Errorf("the pod runs as %v", s)
	}
	if *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem || fmt.Sprint(c.Capabilities.Drop) != "[ALL]" {
		t.Errorf("the container runs as %v", c)
	}
}

// TestChartRefusesValuesThatCannotWork holds that a mistake is found before anything is installed.
func TestChartRefusesValuesThatCannotWork(t *testing.T) {
	t.Parallel()
	const postgres = "tls: {insecure: true}\nstore: postgresql\n"
	for name, text := range map[string]string{
		"neither TLS nor insecure":    "{}",
		"two servers on a file":       "{tls: {insecure: true}, replicas: 2}",
		"PostgreSQL without URL":      postgres + "hashKey: {existingSecret: k}",
		"PostgreSQL without keys":     postgres + "postgresql: {url: 'postgres://patd@db/patd'}",
		"a password in the URL":       postgres + "hashKey: {existingSecret: k}\npostgresql: {url: 'postgres://patd:secret@db/patd'}",
		"an unknown value":            "{tls: {insecure: true}, replica: 1}",
		"a setting that the chart is": "{tls: {insecure: true}, config: {http-addr: ':1'}}",
		"a duration without a unit":   "{tls: {insecure: true}, drain: {delay: '10'}}",
	} {
		if _, err := render(values(t, text)); err == nil || !strings.Contains(err.Error(), "schema") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEveryValueIsDescribed reads values.yaml and values.schema.json.
func TestEveryValueIsDescribed(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(chartDir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	type node struct {
		Description string
		Properties  map[string]*node
	}
	var schema node
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	given, err := os.ReadFile(filepath.Join(chartDir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	var compare func(path string, s *node, v map[string]any)
	compare = func(path string, s *node, v map[string]any) {
		for name, under := range s.Properties {
			count++
			if under.Description == "" {
				t.Errorf("%s.%s has no description", path, name)
			}
			if _, ok := v[name]; !ok && name != "global" {
				t.Errorf("values.yaml does not have %s.%s", path, name)
			}
			if below, ok := v[name].(map[string]any); ok && under.Properties != nil {
				compare(path+"."+name, under, below)
			}
		}
	}
	compare("", &schema, values(t, string(given)))
	if count < 50 {
		t.Errorf("there are only %d values", count)
	}
}
