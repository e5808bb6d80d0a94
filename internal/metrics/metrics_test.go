package metrics

import (
	"context"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"vpnd/internal/dataplane"
	"vpnd/peers"
)

func TestScrape(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	state := peers.New()
	stats := dataplane.Stats{Peers: map[dataplane.Key]dataplane.PeerStats{
		{1}: {LastHandshake: now.Add(-time.Minute), Received: 100, Sent: 10},
		{2}: {LastHandshake: now.Add(-time.Hour), Received: 1},
		{3}: {},
	}, Filters: []string{"a chain"}}
	m := New(Sources{
		Version: "v1", View: state.View, Applied: func() uint64 { return 0 }, Leader: func() bool { return true },
		Stats:   func(context.Context) (dataplane.Stats, error) { return stats, nil },
		CertEnd: func() (time.Time, error) { return now, nil },
		Now:     func() time.Time { return now },
	})
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		b, _ := io.ReadAll(w.Result().Body)
		return w.Code, string(b)
	}
	for _, action := range []string{"session.start", "code.wrong", "user.lock", "session.end", "policy.apply"} {
		m.Event(peers.Entry{Action: action, At: now.Add(-20 * time.Millisecond)})
	}
	m.Drift()
	get("/metrics")
	// A peer that comes back with smaller counters, and one that has gone, take nothing away.
	stats.Peers = map[dataplane.Key]dataplane.PeerStats{{1}: {LastHandshake: now, Received: 5, Sent: 1}}
	code, text := get("/metrics")
	if code != 200 {
		t.Fatalf("%d: %s", code, text)
	}
	for _, want := range []string{
		`vpnd_build_info{goversion="go1.`, "vpnd_users 0", "vpnd_devices 0", "vpnd_sessions 0", "vpnd_plane_lag_commands 0", "vpnd_raft_leader 1",
		"vpnd_plane_up 1", "vpnd_plane_complaints 1", "vpnd_peers_live 1", "vpnd_handshakes_total 3", "vpnd_received_bytes_total 106", "vpnd_sent_bytes_total 11",
		"vpnd_certificate_end_timestamp_seconds 1.8e+09", `vpnd_sign_ins_total{result="ok"} 1`, `vpnd_sign_ins_total{result="wrong"} 2`, `vpnd_sign_ins_total{result="locked"} 1`,
		"vpnd_drift_total 1", `vpnd_sign_in_duration_seconds_bucket{le="0.025"} 1`, `vpnd_revocation_duration_seconds_bucket{le="0.01"} 0`, "vpnd_revocation_duration_seconds_count 1",
		"process_open_fds",
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("%q is missing", want)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "vpnd_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	if code, _ := get("/healthz"); code != 200 {
		t.Errorf("/healthz: %d", code)
	}
	if code, _ := get("/readyz"); code != 503 {
		t.Errorf("/readyz without a cluster: %d", code)
	}
}
