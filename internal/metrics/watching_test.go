package metrics

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"
)

// What watches vpnd from outside, and the page that explains it.
const (
	rulesFile = "../../packaging/prometheus/vpnd.rules.yml"
	rulesTest = "../../packaging/prometheus/vpnd.rules.test.yml"
	dashboard = "../../packaging/grafana/vpnd.json"
	manual    = "../../docs/operations.md"
)

type alertRule struct{ Alert, Expr string }

// named are the metrics in a text, a histogram under its own name. Prometheus makes up itself.
var metricName = regexp.MustCompile(`\b(?:vpnd|process|go)_[a-z_0-9]+`)

func named(text string) map[string]bool {
	out := map[string]bool{}
	for _, n := range metricName.FindAllString(text, -1) {
		out[strings.TrimSuffix(n, "_bucket")] = true
	}
	return out
}

// known are the metrics of the registry.
func known() map[string]bool {
	out := map[string]bool{}
	name := regexp.MustCompile(`fqName: "([^"]+)"`)
	descs := make(chan *prometheus.Desc)
	go func() { New(Sources{}).reg.Describe(descs); close(descs) }()
	for d := range descs {
		out[name.FindStringSubmatch(d.String())[1]] = true
	}
	return out
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func alerts(t *testing.T) (out []alertRule) {
	t.Helper()
	var f struct{ Groups []struct{ Rules []alertRule } }
	if err := yaml.Unmarshal(read(t, rulesFile), &f); err != nil {
		t.Fatal(err)
	}
	for _, g := range f.Groups {
		out = append(out, g.Rules...)
	}
	if len(out) < 10 {
		t.Fatalf("%d alerts could be read", len(out))
	}
	return out
}

// Alerts and dashboard ask for what there is. The dashboard and the manual have all of ours.
func TestWatchedMetricsExist(t *testing.T) {
	there := known()
	for _, a := range alerts(t) {
		asks := named(a.Expr)
		if len(asks) == 0 && !strings.Contains(a.Expr, "up{") {
			t.Errorf("%s asks for nothing of ours: %s", a.Alert, a.Expr)
		}
		for n := range asks {
			if !there[n] {
				t.Errorf("%s asks for %s, which vpnd does not have", a.Alert, n)
			}
		}
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(read(t, dashboard), &d); err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			for n := range named(target.Expr) {
				shown[n] = true
				if !there[n] {
					t.Errorf("the panel %q asks for %s, which vpnd does not have", p.Title, n)
				}
			}
		}
	}
	_, page, ok := strings.Cut(string(read(t, manual)), "## Metrics")
	if !ok {
		t.Fatal("the manual has no section of metrics")
	}
	explained := map[string]bool{}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "| `vpnd_") {
			maps.Copy(explained, named(line))
		}
	}
	for n := range explained {
		if !there[n] {
			t.Errorf("the manual explains %s, which vpnd does not have", n)
		}
	}
	for n := range there {
		if !strings.HasPrefix(n, "vpnd_") {
			continue
		}
		if !explained[n] {
			t.Errorf("the manual does not explain %s", n)
		}
		if !shown[n] {
			t.Errorf("the dashboard does not show %s", n)
		}
	}
}

// Each alert has a test of promtool's in which it fires and is silent beside it, and a line in
// the manual that says what to do.
func TestAlertsAreTestedAndExplained(t *testing.T) {
	var f struct {
		RuleFiles []string `yaml:"rule_files"`
		Tests     []struct {
			Input []struct{ Series string } `yaml:"input_series"`
			Cases []struct {
				Alert  string `yaml:"alertname"`
				Expect []struct {
					Labels map[string]string `yaml:"exp_labels"`
				} `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal(read(t, rulesTest), &f); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(f.RuleFiles, []string{"vpnd.rules.yml"}) {
		t.Errorf("the tests are of %q", f.RuleFiles)
	}
	fires := map[string]bool{}
	for _, test := range f.Tests {
		bystander := slices.ContainsFunc(test.Input, func(s struct{ Series string }) bool { return strings.Contains(s.Series, `instance="good"`) })
		for _, c := range test.Cases {
			if len(c.Expect) == 1 && c.Expect[0].Labels["instance"] == "bad" && bystander {
				fires[c.Alert] = true
			}
		}
	}
	page := string(read(t, manual))
	for _, a := range alerts(t) {
		if !fires[a.Alert] {
			t.Errorf("no test sees %s fire for one gateway and not for another", a.Alert)
		}
		if !strings.Contains(page, "\n| `"+a.Alert+"` | ") {
			t.Errorf("the manual does not say what to do about %s", a.Alert)
		}
	}
}
