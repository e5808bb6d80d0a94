// Package metrics tells Prometheus how the gateway does. It only reads. No label of it grows
// with people: who did what is the log's and the audit log's.
package metrics

import (
	"context"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"vpnd/internal/dataplane"
	"vpnd/internal/store"
	"vpnd/peers"
)

// Sources are what is read at a scrape.
type Sources struct {
	Version string
	View    func() *peers.View
	Applied func() uint64                                 // index that the plane has
	Wait    func(ctx context.Context, index uint64) error // until the plane has it
	Turns   func() bool                                   // vpnd's own loops are at work
	Raft    func() store.Health
	Stats   func(context.Context) (dataplane.Stats, error)
	CertEnd func() (time.Time, error)
	Now     func() time.Time
}

// Metrics are a gateway's.
type Metrics struct {
	src     Sources
	reg     *prometheus.Registry
	signIns *prometheus.CounterVec
	drift   prometheus.Counter
	open    prometheus.Histogram
	closed  prometheus.Histogram
	write   prometheus.Histogram
	snap    prometheus.Histogram
	traffic *traffic
}

// Buckets of latencies, in seconds: what is promised is well below one.
var buckets = []float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// Of what waits for the disk: an fsync of an SSD takes less than a millisecond, of a busy disk
// seconds.
var diskBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// New returns the metrics; Event feeds them.
func New(s Sources) *Metrics {
	m := &Metrics{src: s, reg: prometheus.NewRegistry(), traffic: &traffic{last: map[dataplane.Key]dataplane.PeerStats{}}}
	m.signIns = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vpnd_sign_ins_total", Help: "Codes that were evaluated, by result, and locks that wrong ones brought."}, []string{"result"})
	for _, r := range []string{"ok", "wrong", "locked"} {
		m.signIns.WithLabelValues(r) // from 0 on, so that a rate can be had
	}
	m.drift = prometheus.NewCounter(prometheus.CounterOpts{Name: "vpnd_drift_total", Help: "Things that were changed by hand and put right."})
	m.open = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "vpnd_sign_in_duration_seconds", Help: "From the accepted code to the data plane having opened.", Buckets: buckets})
	m.closed = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "vpnd_revocation_duration_seconds", Help: "From a revocation to the data plane having closed.", Buckets: buckets})
	m.write = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "vpnd_raft_log_write_duration_seconds", Help: "To have commands in the log on this node's disk, with the fsync.", Buckets: diskBuckets})
	m.snap = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "vpnd_raft_snapshot_duration_seconds", Help: "To write a snapshot of the state.", Buckets: diskBuckets})
	m.reg.MustRegister(m.signIns, m.drift, m.open, m.closed, m.write, m.snap, collector{m},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Drift counts something that was put right.
func (m *Metrics) Drift() { m.drift.Inc() }

// Wrote counts a write of Raft's log.
func (m *Metrics) Wrote(took time.Duration) { m.write.Observe(took.Seconds()) }

// Snapped counts a snapshot.
func (m *Metrics) Snapped(took time.Duration) { m.snap.Observe(took.Seconds()) }

// Event counts a new line of the audit log, once the plane has applied it.
func (m *Metrics) Event(e peers.Entry) {
	took := max(0, m.src.Now().Sub(e.At).Seconds())
	switch e.Action {
	case "session.start", "session.renew":
		m.signIns.WithLabelValues("ok").Inc()
		m.open.Observe(took)
	case "code.wrong":
		m.signIns.WithLabelValues("wrong").Inc()
	case "user.lock": // by the last wrong code
		m.signIns.WithLabelValues("wrong").Inc()
		m.signIns.WithLabelValues("locked").Inc()
	case "session.end", "device.disable", "device.remove", "device.rotate", "user.disable", "user.remove", "user.reset-totp":
		m.closed.Observe(took)
	}
}

// ready bounds how long /readyz waits for the plane to have what was decided just now.
const ready = 2 * time.Second

// Handler answers /metrics, /healthz (our own loops turn: a restart would mend it if not) and
// /readyz (people can sign in here, and what is decided holds).
func (m *Metrics) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if !m.src.Turns() {
			http.Error(w, "vpnd's loop does not turn", http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if why := m.unready(r.Context()); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte("ok\n"))
	})
	return mux
}

// unready says what keeps people from being served here; "" if nothing does.
func (m *Metrics) unready(ctx context.Context) string {
	v := m.src.View()
	if _, ok := v.Settings(); !ok {
		return "there is no cluster yet"
	}
	if !m.src.Raft().Led {
		return "no gateway leads: nobody can sign in"
	}
	ctx, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	if m.src.Wait(ctx, v.Index()) != nil {
		return "the data plane does not have the newest state"
	}
	return ""
}

// collector reads what is read at a scrape.
type collector struct{ m *Metrics }

// gauge describes a value without labels.
func gauge(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("vpnd_"+name, help, nil, nil)
}

var (
	buildInfo  = prometheus.NewDesc("vpnd_build_info", "Always 1; the labels are the build's.", []string{"version", "goversion"}, nil)
	users      = gauge("users", "People.")
	devices    = gauge("devices", "Enrolled devices.")
	sessions   = gauge("sessions", "Sessions that are open.")
	index      = gauge("state_index", "Last command of the replicated state.")
	lag        = gauge("plane_lag_commands", "Commands that the data plane has not carried out yet.")
	leader     = gauge("raft_leader", "Whether this node leads.")
	led        = gauge("raft_leader_known", "Whether this node leads or knows who does; without a leader nothing can be decided.")
	term       = gauge("raft_term", "Raft's term; it grows with each election.")
	behind     = gauge("raft_apply_lag_entries", "Committed entries of the log that the state does not have yet.")
	contact    = gauge("raft_leader_contact_age_seconds", "Since the leader was last heard of; 0 where this node leads.")
	clock      = gauge("clock_behind_seconds", "How far the wall clock lies behind the state's time; above 5 nobody can sign in.")
	planeUp    = gauge("plane_up", "Whether the data plane answers.")
	complaints = gauge("plane_complaints", "Rules of other firewalls that drop what vpnd accepts.")
	live       = gauge("peers_live", "Peers with a handshake in the last three minutes.")
	handshakes = gauge("handshakes_total", "Handshakes that were seen at scrapes.")
	received   = gauge("received_bytes_total", "Bytes from peers that were seen at scrapes.")
	sent       = gauge("sent_bytes_total", "Bytes to peers that were seen at scrapes.")
	certEnd    = gauge("certificate_end_timestamp_seconds", "When the portal's certificate ends.")
)

// Describe implements prometheus.Collector.
func (collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildInfo, users, devices, sessions, index, lag, leader, led, term, behind, contact, clock, planeUp, complaints, live, handshakes, received, sent, certEnd} {
		out <- d
	}
}

// scrape bounds the questions of one scrape.
const scrape = 5 * time.Second

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.m.src
	value := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	is := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	v := s.View()
	applied := s.Applied()
	u, d, n := v.Counts()
	value(buildInfo, prometheus.GaugeValue, 1, s.Version, runtime.Version())
	value(users, prometheus.GaugeValue, float64(u))
	value(devices, prometheus.GaugeValue, float64(d))
	value(sessions, prometheus.GaugeValue, float64(n))
	value(index, prometheus.GaugeValue, float64(v.Index()))
	value(lag, prometheus.GaugeValue, float64(v.Index()-min(applied, v.Index())))
	r := s.Raft()
	value(leader, prometheus.GaugeValue, is(r.Leads))
	value(led, prometheus.GaugeValue, is(r.Led))
	value(term, prometheus.GaugeValue, float64(r.Term))
	value(behind, prometheus.GaugeValue, float64(r.Behind))
	value(contact, prometheus.GaugeValue, r.Contact.Seconds())
	value(clock, prometheus.GaugeValue, max(0, v.Time().Sub(s.Now()).Seconds()))
	if end, err := s.CertEnd(); err == nil {
		value(certEnd, prometheus.GaugeValue, float64(end.Unix()))
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrape)
	defer cancel()
	st, err := s.Stats(ctx)
	value(planeUp, prometheus.GaugeValue, is(err == nil))
	if err != nil {
		return
	}
	value(complaints, prometheus.GaugeValue, float64(len(st.Filters)))
	t := c.m.traffic.look(st.Peers, s.Now())
	value(live, prometheus.GaugeValue, float64(t.live))
	value(handshakes, prometheus.CounterValue, float64(t.handshakes))
	value(received, prometheus.CounterValue, float64(t.received))
	value(sent, prometheus.CounterValue, float64(t.sent))
}

// traffic adds up what peers have done, over those that are gone: a counter never falls.
type traffic struct {
	mu    sync.Mutex
	last  map[dataplane.Key]dataplane.PeerStats
	total totals
}

type totals struct {
	live, handshakes int
	received, sent   int64 // bytes
}

// recent is how long a WireGuard session lives without a new handshake (wg: REJECT_AFTER_TIME).
const recent = 3 * time.Minute

func (t *traffic) look(now map[dataplane.Key]dataplane.PeerStats, at time.Time) totals {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total.live = 0
	for k, p := range now {
		was := t.last[k]
		if p.Received < was.Received || p.Sent < was.Sent {
			was.Received, was.Sent = 0, 0 // the interface, or the peer, was made anew
		}
		t.total.received += p.Received - was.Received
		t.total.sent += p.Sent - was.Sent
		if p.LastHandshake.After(was.LastHandshake) {
			t.total.handshakes++
		}
		if !p.LastHandshake.IsZero() && at.Sub(p.LastHandshake) < recent {
			t.total.live++
		}
	}
	t.last = now
	return t.total
}
