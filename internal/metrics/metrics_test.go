package metrics

import (
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"vpnd/internal/control/controltest"
	"vpnd/internal/dataplane"
	"vpnd/internal/store"
	"vpnd/peers"
)

func TestScrape(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	state := peers.New()
	stats := dataplane.Stats{Peers: map[dataplane.Key]dataplane.PeerStats{
		{1}: {LastHandshake: now.Add(-time.Minute), Received: 100, Sent: 10},
		{2}: {LastHandshake: now.Add(-time.Hour), Received: 1},
		{3}: {},
	}, Filters: dataplane.Complaints("a chain")}
	raft := store.Health{Leads: true, Led: true, Term: 7, Behind: 2, Contact: 1500 * time.Millisecond}
	turns := true
	m := New(Sources{
		Version: "v1", View: state.View, Applied: func() uint64 { return 0 }, Raft: func() store.Health { return raft },
		Wait: func(context.Context, uint64) error { return nil }, Turns: func() bool { return turns },
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
	m.Wrote(3 * time.Millisecond)
	m.Snapped(2 * time.Second)
	get("/metrics")
	// A peer that comes back with smaller counters, and one that has gone, take nothing away.
	stats.Peers = map[dataplane.Key]dataplane.PeerStats{{1}: {LastHandshake: now, Received: 5, Sent: 1}}
	code, text := get("/metrics")
	if code != 200 {
		t.Fatalf("%d: %s", code, text)
	}
	for _, want := range []string{
		`vpnd_build_info{goversion="go1.`, "vpnd_users 0", "vpnd_devices 0", "vpnd_sessions 0", "vpnd_plane_lag_commands 0", "vpnd_raft_leader 1",
		"vpnd_raft_leader_known 1", "vpnd_raft_term 7", "vpnd_raft_apply_lag_entries 2", "vpnd_raft_leader_contact_age_seconds 1.5", "vpnd_clock_behind_seconds 0",
		`vpnd_raft_log_write_duration_seconds_bucket{le="0.0025"} 0`, `vpnd_raft_log_write_duration_seconds_bucket{le="0.005"} 1`, `vpnd_raft_snapshot_duration_seconds_bucket{le="2.5"} 1`,
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
	turns = false
	if code, _ := get("/healthz"); code != 503 {
		t.Errorf("/healthz while nothing turns: %d", code)
	}
	if code, _ := get("/readyz"); code != 503 {
		t.Errorf("/readyz without a cluster: %d", code)
	}
}

// of gives the metrics of a gateway whose state, traffic and news are of so many people.
func of(t *testing.T, people int) (text string, ready func(*store.Health, error) int) {
	t.Helper()
	now := time.Unix(1_800_000_000, 0)
	st := controltest.NewStore()
	do := func(b peers.Body) {
		t.Helper()
		if _, r, err := st.Propose(t.Context(), peers.Command{At: now.Add(time.Minute), Actor: "test", Body: b}); err != nil || r.Err != nil {
			t.Fatal(err, r.Err)
		}
	}
	do(peers.Init{Policy: "{}", Settings: peers.Settings{
		Cluster: peers.ID{1}, Created: now, PrivateKey: []byte{1}, CAKey: []byte{1}, CACert: []byte{1}, PublicKey: peers.Key{9},
		Network:  []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")},
		Endpoint: "192.0.2.1:51820", URL: "https://192.0.2.1:8443", Session: time.Hour,
	}})
	raft, waited := store.Health{Led: true}, error(nil)
	stats := dataplane.Stats{Peers: map[dataplane.Key]dataplane.PeerStats{}}
	m := New(Sources{
		Version: "v1", View: st.State().View, Applied: func() uint64 { return 1 }, Raft: func() store.Health { return raft },
		Wait:    func(context.Context, uint64) error { return waited },
		Stats:   func(context.Context) (dataplane.Stats, error) { return stats, nil },
		CertEnd: func() (time.Time, error) { return now, nil },
		Now:     func() time.Time { return now },
	})
	for i := range people {
		name := fmt.Sprintf("user%d", i)
		do(peers.UserAdd{ID: peers.ID{byte(i), 1}, Name: name})
		stats.Peers[dataplane.Key{byte(i)}] = dataplane.PeerStats{LastHandshake: now, Received: 1, Sent: 1}
	}
	for _, e := range st.State().View().Audit(0, 0) {
		m.Event(e)
	}
	for i := range people {
		for _, action := range []string{"session.start", "code.wrong", "user.lock", "session.end"} {
			m.Event(peers.Entry{Action: action, Actor: fmt.Sprintf("user%d", i), Target: fmt.Sprintf("user%d/phone", i), At: now})
		}
	}
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	_, text = get("/metrics")
	return text, func(h *store.Health, err error) int {
		raft, waited = *h, err
		code, _ := get("/readyz")
		return code
	}
}

// There are as many series with a hundred people as with one: no label grows with them.
func TestSeriesDoNotGrow(t *testing.T) {
	series := func(text string) (out []string) {
		for line := range strings.Lines(text) {
			if name, _, ok := strings.Cut(line, " "); ok && name != "#" && strings.HasPrefix(name, "vpnd_") {
				out = append(out, name)
			}
		}
		return out
	}
	few, _ := of(t, 1)
	many, _ := of(t, 100)
	a, b := series(few), series(many)
	if len(a) < 50 || !strings.Contains(many, "\nvpnd_users 100\n") || !strings.Contains(few, "\nvpnd_users 1\n") {
		t.Fatalf("%d series: %s", len(a), many)
	}
	if !slices.Equal(a, b) {
		t.Errorf("with one person\n%s\nwith a hundred\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
	if !strings.Contains(few, "\nvpnd_clock_behind_seconds 60\n") {
		t.Error("the clock is a minute behind the state's time, and that is not told")
	}
}

// Ready is who can let people in and carries out what is decided.
func TestReady(t *testing.T) {
	_, ready := of(t, 1)
	for _, c := range []struct {
		raft store.Health
		wait error
		want int
	}{
		{store.Health{Led: true}, nil, 200},
		{store.Health{}, nil, 503},
		{store.Health{Led: true}, context.DeadlineExceeded, 503},
	} {
		if got := ready(&c.raft, c.wait); got != c.want {
			t.Errorf("%+v, %v: %d, want %d", c.raft, c.wait, got, c.want)
		}
	}
}
