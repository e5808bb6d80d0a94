package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// Debian's Prometheus scrapes a gateway by the alert rules that we ship: each has the series
// that it asks for, none fires while all is well, and one fires when something was changed by
// hand.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "linux")
	w.startVpnd("--metrics", "127.0.0.1:9586")
	alice := w.person("alice", "phone")
	alice.signIn()
	w.vpnctl("session", "end", "alice")

	for path, want := range map[string]string{"healthz": "ok\n", "readyz": "ok\n"} {
		if got := w.gw.run("curl", "-sS", "--max-time", "5", "http://127.0.0.1:9586/"+path); got != want {
			t.Errorf("/%s: %q", path, got)
		}
	}

	rules, err := filepath.Abs("../../packaging/prometheus/vpnd.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := w.path("prometheus.yml")
	if err := os.WriteFile(config, []byte(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: ["`+rules+`"]
scrape_configs:
  - job_name: vpnd
    static_configs: [{targets: ["127.0.0.1:9586"]}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := w.gw.start(nil, "prometheus", "--config.file", config, "--storage.tsdb.path", w.path("tsdb"), "--web.listen-address", "127.0.0.1:9090")
	// ask gets the data of an answer of Prometheus' API.
	ask := func(v any, path string, args ...string) error {
		args = append([]string{"curl", "-sS", "--max-time", "5", "-G", "http://127.0.0.1:9090/api/v1/" + path}, args...)
		out, err := w.gw.try(args...)
		if err != nil {
			return err
		}
		a := struct {
			Status, Error string
			Data          any
		}{Data: v}
		if err := json.Unmarshal([]byte(out), &a); err != nil || a.Status != "success" {
			return fmt.Errorf("%s %v: %v %s", path, args, err, out)
		}
		return nil
	}
	type rule struct {
		Name, Query, Health, State, LastError string
	}
	all := func() (out []rule, err error) {
		var got struct{ Groups []struct{ Rules []rule } }
		err = ask(&got, "rules")
		for _, g := range got.Groups {
			out = append(out, g.Rules...)
		}
		return out, err
	}
	eventually(t, 30*time.Second, "every rule is judged", func() error {
		select {
		case <-p.done:
			t.Fatalf("Prometheus has ended:\n%s", p.log)
		default:
		}
		list, err := all()
		if err != nil || len(list) < 10 || slices.ContainsFunc(list, func(r rule) bool { return r.Health != "ok" }) {
			return fmt.Errorf("%v %+v", err, list)
		}
		return nil
	})
	list, err := all()
	if err != nil {
		t.Fatal(err)
	}
	selector := regexp.MustCompile(`\b(?:up|vpnd_[a-z_]+|process_[a-z_]+)\b(?:\{[^}]*\})?`)
	for _, r := range list {
		asks := selector.FindAllString(r.Query, -1)
		if len(asks) == 0 {
			t.Errorf("%s asks for nothing: %s", r.Name, r.Query)
		}
		for _, s := range asks {
			// The first scrape that has it may still be to come.
			eventually(t, 10*time.Second, r.Name+" has "+s, func() error {
				var got struct{ Result []any }
				if err := ask(&got, "query", "--data-urlencode", "query="+s); err != nil || len(got.Result) == 0 {
					return fmt.Errorf("%d series, %v", len(got.Result), err)
				}
				return nil
			})
		}
		if r.State != "inactive" {
			t.Errorf("%s is %s while all is well", r.Name, r.State)
		}
	}

	w.gw.run("wg", "set", w.iface, "peer", strings.TrimSpace(w.gw.run("wg", "show", w.iface, "peers")), "remove")
	eventually(t, 30*time.Second, "VpndChangedByHand fires", func() error {
		list, err := all()
		if err != nil || !slices.ContainsFunc(list, func(r rule) bool { return r.Name == "VpndChangedByHand" && r.State == "firing" }) {
			return fmt.Errorf("%v %+v", err, list)
		}
		return nil
	})
}
