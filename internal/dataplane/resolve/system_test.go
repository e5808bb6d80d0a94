package resolve

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// serve runs a DNS server on a loopback address, by UDP and TCP at one port.
func serve(t *testing.T, host, port string, handler dns.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{Listener: l, Handler: handler}, {PacketConn: pc, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func record(t *testing.T, s string) dns.RR {
	t.Helper()
	rr, err := dns.NewRR(s)
	if err != nil {
		t.Fatal(err)
	}
	return rr
}

func system(t *testing.T, port, conf string) *System {
	t.Helper()
	s := NewSystem()
	s.conf, s.port = filepath.Join(t.TempDir(), "resolv.conf"), port
	if err := os.WriteFile(s.conf, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSystem(t *testing.T) {
	zone := map[string][]string{ // by "name type"
		"nas.lan. A":         {"nas.lan. 300 IN A 10.6.0.2", "nas.lan. 200 IN A 10.6.0.3"},
		"nas.lan. AAAA":      {"nas.lan. 100 IN AAAA fd00::2"},
		"four.lan. A":        {"four.lan. 60 IN A 10.6.0.4", "other.lan. 1 IN A 10.6.0.99"},
		"alias.lan. A":       {"alias.lan. 500 IN CNAME Step.lan.", "step.lan. 20 IN CNAME nas.lan.", "nas.lan. 300 IN A 10.6.0.2"},
		"alias.lan. AAAA":    {"alias.lan. 500 IN CNAME step.lan."},
		"loop.lan. A":        {"loop.lan. 5 IN CNAME loop.lan."},
		"short.example. A":   {"short.example. 50 IN A 10.6.0.5"},
		"broken.lan. A":      {"broken.lan. 50 IN A 10.6.0.6"},
		"huge.lan. A":        nil,
		"empty.example. TXT": {"empty.example. 1 IN TXT x"},
	}
	for i := range 200 {
		zone["huge.lan. A"] = append(zone["huge.lan. A"], fmt.Sprintf("huge.lan. 30 IN A 10.9.0.%d", i))
	}
	port := serve(t, "127.0.0.1", "0", func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		name := strings.ToLower(q.Question[0].Name)
		kind := dns.TypeToString[q.Question[0].Qtype]
		switch {
		case name == "fails.lan.", name == "broken.lan." && kind == "AAAA":
			r.Rcode = dns.RcodeServerFailure
		case name == "other-question.lan.":
			r.Question[0].Name = "x."
		default:
			found := false
			for key := range zone {
				found = found || strings.HasPrefix(key, name+" ")
			}
			if !found {
				r.Rcode = dns.RcodeNameError
			}
			for _, s := range zone[name+" "+kind] {
				r.Answer = append(r.Answer, record(t, s))
			}
		}
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			r.Truncate(payload)
		}
		w.WriteMsg(r)
	})
	s := system(t, port, "nameserver 127.0.0.1\nsearch example\noptions timeout:1 attempts:1\n")
	for name, want := range map[string]struct {
		addrs string
		ttl   time.Duration
		err   string
	}{
		"nas.lan":            {"[10.6.0.2 10.6.0.3 fd00::2]", 100 * time.Second, ""},
		"NAS.lan":            {"[10.6.0.2 10.6.0.3 fd00::2]", 100 * time.Second, ""},
		"four.lan":           {"[10.6.0.4]", time.Minute, ""},
		"alias.lan":          {"[10.6.0.2]", 20 * time.Second, ""},
		"short":              {"[10.6.0.5]", 50 * time.Second, ""},
		"broken.lan":         {"[10.6.0.6]", 50 * time.Second, ""},
		"loop.lan":           {"[]", noNameTTL, "no such name"},
		"none.lan":           {"[]", noNameTTL, "no such name"},
		"empty.example":      {"[]", noNameTTL, "no such name"},
		"fails.lan":          {"[]", 0, "the DNS server 127.0.0.1 answers SERVFAIL"},
		"other-question.lan": {"[]", 0, "another question"},
		"localhost":          {"[127.0.0.1 ::1]", time.Minute, ""},
	} {
		a, err := s.Lookup(t.Context(), name)
		slices.SortFunc(a.Addrs, netip.Addr.Compare)
		if name == "localhost" && err == nil {
			a.Addrs = a.Addrs[:1] // what more it is depends on the host
			want.addrs = "[127.0.0.1]"
		}
		if fmt.Sprint(a.Addrs) != want.addrs || a.TTL != want.ttl || (err == nil) != (want.err == "") || err != nil && !strings.Contains(err.Error(), want.err) {
			t.Errorf("%s: %v for %v, %v, want %+v", name, a.Addrs, a.TTL, err, want)
		}
		if want.err == "no such name" != errors.Is(err, ErrNoName) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a, err := s.Lookup(t.Context(), "huge.lan"); err != nil || len(a.Addrs) != 200 {
		t.Errorf("what has no room in a datagram: %d addresses, %v", len(a.Addrs), err)
	}
}

// Where one server is silent the next is asked; where none answers it is said without anything
// that differs from time to time.
func TestServersInTurn(t *testing.T) {
	var silent atomic.Int32
	port := serve(t, "127.0.0.1", "0", func(dns.ResponseWriter, *dns.Msg) { silent.Add(1) })
	answers := func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			r.Answer = append(r.Answer, record(t, q.Question[0].Name+" 30 IN A 10.6.0.2"))
		}
		w.WriteMsg(r)
	}
	serve(t, "127.0.0.2", port, answers)
	s := system(t, port, "nameserver 127.0.0.1\nnameserver 127.0.0.3\nnameserver 127.0.0.2\noptions timeout:1 attempts:1\n")
	if a, err := s.Lookup(t.Context(), "nas.lan"); err != nil || fmt.Sprint(a.Addrs) != "[10.6.0.2]" || silent.Load() == 0 {
		t.Errorf("%v, %v", a, err)
	}
	for _, test := range []struct{ server, want string }{
		{"127.0.0.1", "the DNS server 127.0.0.1 does not answer: i/o timeout"},
		{"127.0.0.3", "the DNS server 127.0.0.3 does not answer: read: connection refused"},
	} {
		s := system(t, port, "nameserver "+test.server+"\noptions timeout:1 attempts:1\n")
		if _, err := s.Lookup(t.Context(), "nas.lan"); err == nil || err.Error() != test.want {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
	s.conf = filepath.Join(t.TempDir(), "none")
	conf, err := s.config()
	if err != nil || conf.Servers[0] != "127.0.0.1" {
		t.Errorf("without a file: %v, %v", conf, err)
	}
}
