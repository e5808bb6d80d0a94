package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// names is a resolver whose answers are set.
type names struct {
	mu     sync.Mutex
	answer Answer
	err    error
	up     string // the addresses that answer

	asked, changed int
}

func (n *names) set(a Answer, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer, n.err = a, err
}

func (n *names) answers(up string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up = up
}

func (n *names) lookup(context.Context, string) (Answer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	return n.answer, n.err
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestKeepsAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{answer: Answer{addrs("10.6.0.3", "10.6.0.2"), time.Minute}}
		r := &Resolver{Lookup: n.lookup, Changed: func(string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.changed++
		},
			Refused: func(a netip.Addr) error {
				if a.IsLoopback() {
					return errors.New("is this host's own")
				}
				return nil
			},
			Reaches: func(_ context.Context, _ string, a netip.Addr) bool {
				n.mu.Lock()
				defer n.mu.Unlock()
				return strings.Contains(n.up, a.String())
			}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		expect := func(wait time.Duration, asked, changes int, want string) {
			t.Helper()
			time.Sleep(wait)
			synctest.Wait()
			got, trouble := r.Addrs("nas.lan")
			n.mu.Lock()
			defer n.mu.Unlock()
			if said := fmt.Sprint(got, trouble); said != want || n.asked != asked || n.changed != changes {
				t.Errorf("it is %s, asked %d times and changed %d times; want %s, %d, %d", said, n.asked, n.changed, want, asked, changes)
			}
		}
		r.Want(ctx, []string{"nas.lan"})
		expect(0, 1, 1, "[10.6.0.2 10.6.0.3] <nil>")
		expect(59*time.Second, 1, 1, "[10.6.0.2 10.6.0.3] <nil>")
		n.answers("10.6.0.3")
		expect(2*time.Second, 2, 2, "[10.6.0.3 10.6.0.2] <nil>")
		// Both answer: the present one stays first.
		n.answers("10.6.0.3 10.6.0.2")
		expect(time.Minute, 3, 2, "[10.6.0.3 10.6.0.2] <nil>")
		// The resolver fails: the last answer stays, and it is said, once.
		n.set(Answer{}, errors.New("no answer"))
		expect(time.Minute, 4, 3, "[10.6.0.3 10.6.0.2] looking nas.lan up: no answer")
		expect(25*time.Second, 6, 3, "[10.6.0.3 10.6.0.2] looking nas.lan up: no answer")
		// Short times are stretched, long ones cut.
		n.set(Answer{addrs("10.6.0.9"), time.Second}, nil)
		expect(10*time.Second, 7, 4, "[10.6.0.9] <nil>")
		n.set(Answer{addrs("10.6.0.9"), 24 * time.Hour}, nil)
		expect(Shortest, 8, 4, "[10.6.0.9] <nil>")
		expect(Longest-Shortest, 8, 4, "[10.6.0.9] <nil>")
		// What it must not stand for is refused, and the last answer does not hide that.
		n.set(Answer{addrs("127.0.0.1"), time.Minute}, nil)
		expect(Shortest, 9, 5, "[] nas.lan stands for 127.0.0.1, which is this host's own")
		n.set(Answer{addrs("127.0.0.1", "10.6.0.2"), time.Minute}, nil)
		expect(time.Minute, 10, 6, "[10.6.0.2] nas.lan stands for 127.0.0.1, which is this host's own")
		r.Want(ctx, nil)
		expect(time.Hour, 10, 6, "[] <nil>")
	})
}

// server answers by a table.
func server(t *testing.T, answer dns.HandlerFunc) string {
	t.Helper()
	p, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", p.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: p, Handler: answer}, {Listener: l, Handler: answer}} {
		go s.ActivateAndServe()
		t.Cleanup(func() { s.Shutdown() })
	}
	_, port, _ := net.SplitHostPort(p.LocalAddr().String())
	return port
}

func TestAsk(t *testing.T) {
	records := []string{
		"nas.lan. 300 IN CNAME box.lan.", "box.lan. 60 IN A 10.6.0.2", "box.lan. 120 IN AAAA fd00::2",
		"only4.lan. 5 IN A 10.6.0.4",
	}
	for i := range 200 {
		records = append(records, fmt.Sprintf("many.lan. 60 IN A 10.7.0.%d", i))
	}
	port := server(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		name := q.Question[0].Name
		known := false
		for range 2 {
			for _, s := range records {
				rr, _ := dns.NewRR(s)
				if rr.Header().Name != name {
					continue
				}
				known = true
				if c, ok := rr.(*dns.CNAME); ok {
					m.Answer = append(m.Answer, rr)
					name = c.Target
					break
				}
				if rr.Header().Rrtype == q.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
			if len(m.Answer) != 1 || m.Answer[0].Header().Rrtype != dns.TypeCNAME {
				break
			}
		}
		if !known {
			m.Rcode = dns.RcodeNameError
		}
		if strings.HasPrefix(name, "broken") {
			m.Rcode = dns.RcodeServerFailure
		}
		if w.LocalAddr().Network() == "udp" {
			m.Truncate(1232)
		}
		w.WriteMsg(m)
	})
	c := &dns.ClientConfig{Servers: []string{"127.0.0.1"}, Port: port, Search: []string{"lan"}, Ndots: 1, Timeout: 2}
	for name, want := range map[string]string{
		"nas.lan": "[10.6.0.2 fd00::2] 1m0s", "nas": "[10.6.0.2 fd00::2] 1m0s", "only4.lan": "[10.6.0.4] 5s",
		"none.lan": "there is no such name", "broken.lan": "it answers SERVFAIL",
	} {
		a, err := Ask(t.Context(), c, name)
		got := fmt.Sprint(a.Addrs, " ", a.TTL)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if a, err := Ask(t.Context(), c, "many.lan"); err != nil || len(a.Addrs) != 200 {
		t.Errorf("of an answer too large for UDP came %d, %v", len(a.Addrs), err)
	}
	// The next server is asked where the first is silent or fails.
	c.Servers = []string{"127.0.0.9", "127.0.0.1"}
	if a, err := Ask(t.Context(), c, "only4.lan"); err != nil || len(a.Addrs) != 1 {
		t.Errorf("with a dead server first: %v, %v", a, err)
	}
}

func TestSystem(t *testing.T) {
	a, err := System(t.Context(), "localhost")
	if err != nil || len(a.Addrs) == 0 || a.TTL != hostsTTL {
		t.Errorf("localhost is %v, %v", a, err)
	}
}
