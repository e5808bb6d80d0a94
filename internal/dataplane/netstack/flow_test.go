package netstack

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/relay"
)

// offline is a plane whose filter works and that has no WireGuard.
func offline(t testing.TB, policy string, devices ...dataplane.Device) *Plane {
	t.Helper()
	p, err := New(t.Context(), dataplane.Config{AppPort: 8080})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	p.near.Store(&dataplane.Gateway{Addrs: []netip.Addr{gateway4, gateway6}, Network: network})
	for _, d := range devices {
		n := newPeer(d)
		p.byKey[d.PublicKey] = n
		p.devices.put(n)
	}
	p.rules.Store(compile(t, policy, devices...))
	return p
}

func (p *Plane) judgePacket(t testing.TB, b []byte) action {
	t.Helper()
	pk, ok := parse(b)
	if !ok {
		t.Fatalf("%x is not parsed", b)
	}
	a, _ := p.inbound(&pk, time.Now())
	return a
}

func (p *Plane) judgeReply(t testing.TB, b []byte) bool {
	t.Helper()
	pk, ok := parse(b)
	if !ok {
		t.Fatalf("%x is not parsed", b)
	}
	return p.outbound(&pk, time.Now())
}

func TestFilter(t *testing.T) {
	alice, bob, carol := testDevice(2, "alice/laptop"), testDevice(3, "bob/desk"), testDevice(4, "carol/off")
	p := offline(t, grants("alice -> 192.0.2.0/24 tcp:443", "alice -> 192.0.2.0/24 udp:53", "alice -> bob tcp:22",
		"carol -> 192.0.2.0/24 tcp:443", "carol -> 192.0.2.9 tcp:25 off", "alice -> 10.77.0.1 tcp:8080", "alice -> 10.77.0.1 icmp",
		"alice -> 10.77.0.1 tcp:9999", "alice -> bob sctp:3868", "alice -> bob 47:*"), alice, bob, carol)
	for _, s := range []dataplane.Session{signIn(alice, 1, time.Hour), signIn(bob, 2, time.Hour)} {
		if err := p.putSession(s); err != nil {
			t.Fatal(err)
		}
	}
	first, later := fragmented4(udpPacket("10.77.0.2:70", "192.0.2.1:53", string(make([]byte, 200))), 104)
	_, lost := fragmented4(udpPacket("10.77.0.2:71", "192.0.2.1:54", string(make([]byte, 200))), 104)
	lost[5] = 78
	quote := func(b []byte) []byte { return append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, b[:28]...) }
	for _, test := range []struct {
		name string
		b    []byte
		want action
	}{
		{"granted", tcpPacket("10.77.0.2:1", "192.0.2.1:443", flagSYN, ""), deliver},
		{"the same flow goes on", tcpPacket("10.77.0.2:1", "192.0.2.1:443", flagACK, "x"), deliver},
		{"no SYN, no flow", tcpPacket("10.77.0.2:2", "192.0.2.1:443", flagACK, "x"), refuse},
		{"another port", tcpPacket("10.77.0.2:1", "192.0.2.1:444", flagSYN, ""), refuse},
		{"another address", tcpPacket("10.77.0.2:1", "192.0.3.1:443", flagSYN, ""), refuse},
		{"port 80 with a session", tcpPacket("10.77.0.2:1", "192.0.2.1:80", flagSYN, ""), refuse},
		{"port 80 without one", tcpPacket("10.77.0.4:1", "192.0.2.1:80", flagSYN, ""), deliver},
		{"port 80 of a device without one", tcpPacket("10.77.0.4:1", "10.77.0.3:80", flagSYN, ""), deliver},
		{"granted, without a session", tcpPacket("10.77.0.4:1", "192.0.2.1:443", flagSYN, ""), refuse},
		{"granted without a code", tcpPacket("10.77.0.4:1", "192.0.2.9:25", flagSYN, ""), deliver},
		{"portal", tcpPacket("10.77.0.4:1", "10.77.0.1:80", flagSYN, ""), deliver},
		{"portal with a session", tcpPacket("10.77.0.2:1", "10.77.0.1:80", flagSYN, ""), deliver},
		{"portal over UDP", udpPacket("10.77.0.2:1", "10.77.0.1:80", ""), refuse},
		{"app", tcpPacket("10.77.0.2:1", "10.77.0.1:8080", flagSYN, ""), deliver},
		{"app without a session", tcpPacket("10.77.0.4:1", "10.77.0.1:8080", flagSYN, ""), deliver},
		{"app, a session and no grant", tcpPacket("10.77.0.3:1", "10.77.0.1:8080", flagSYN, ""), refuse},
		{"gateway, another port", tcpPacket("10.77.0.2:1", "10.77.0.1:22", flagSYN, ""), refuse},
		{"gateway, another port that is granted", tcpPacket("10.77.0.2:1", "10.77.0.1:9999", flagSYN, ""), refuse},
		{"ping the gateway", echoPacket("10.77.0.2:1", "10.77.0.1"), echo},
		{"ping the gateway without a grant", echoPacket("10.77.0.3:1", "10.77.0.1"), refuse},
		{"UDP", udpPacket("10.77.0.2:1", "192.0.2.1:53", ""), deliver},
		{"UDP, another port", udpPacket("10.77.0.2:1", "192.0.2.1:54", ""), refuse},
		{"a later fragment before the first", later, drop},
		{"first fragment", first, deliver},
		{"later fragment", later, deliver},
		{"later fragment of what was not granted", lost, drop},
		{"to a device", tcpPacket("10.77.0.2:1", "10.77.0.3:22", flagSYN, ""), forward},
		{"its answer", tcpPacket("10.77.0.3:22", "10.77.0.2:1", flagSYN|flagACK, ""), forward},
		{"an error about it", ipPacket(bob.Addrs[0], alice.Addrs[0], protoICMP, quote(tcpPacket("10.77.0.2:1", "10.77.0.3:22", flagSYN, ""))), forward},
		{"an error about nothing", ipPacket(bob.Addrs[0], alice.Addrs[0], protoICMP, quote(tcpPacket("10.77.0.2:9", "10.77.0.3:22", flagSYN, ""))), drop},
		{"an error about another's flow", ipPacket(carol.Addrs[0], alice.Addrs[0], protoICMP, quote(tcpPacket("10.77.0.2:1", "10.77.0.3:22", flagSYN, ""))), drop},
		{"SCTP to a device", sctpPacket("10.77.0.2:1", "10.77.0.3:3868"), forward},
		{"SCTP, its answer", sctpPacket("10.77.0.3:3868", "10.77.0.2:1"), forward},
		{"SCTP, another port", sctpPacket("10.77.0.2:1", "10.77.0.3:3869"), refuse},
		{"SCTP, backwards", sctpPacket("10.77.0.3:1", "10.77.0.2:3868"), refuse},
		{"GRE to a device", ipPacket(alice.Addrs[0], bob.Addrs[0], 47, make([]byte, 8)), forward},
		{"not an answer", tcpPacket("10.77.0.3:22", "10.77.0.2:2", flagSYN|flagACK, ""), refuse},
		{"backwards", tcpPacket("10.77.0.3:1", "10.77.0.2:22", flagSYN, ""), refuse},
		{"to a device that is not there", tcpPacket("10.77.0.2:1", "10.77.0.99:22", flagSYN, ""), refuse},
		{"from nobody", tcpPacket("10.77.0.99:1", "192.0.2.1:443", flagSYN, ""), drop},
		{"multicast", udpPacket("10.77.0.2:1", "224.0.0.251:5353", ""), drop},
		{"loopback", tcpPacket("10.77.0.4:1", "127.0.0.1:80", flagSYN, ""), drop},
		{"another protocol", ipPacket(alice.Addrs[0], netip.MustParseAddr("192.0.2.1"), 47, make([]byte, 8)), refuse},
	} {
		if got := p.judgePacket(t, test.b); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
	for _, test := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"an answer", tcpPacket("192.0.2.1:443", "10.77.0.2:1", flagSYN|flagACK, ""), true},
		{"an answer to another", tcpPacket("192.0.2.1:443", "10.77.0.3:1", flagSYN|flagACK, ""), false},
		{"nothing asked for it", udpPacket("192.0.2.1:54", "10.77.0.2:1", ""), false},
		{"to nobody", tcpPacket("192.0.2.1:443", "10.77.0.99:1", flagRST, ""), false},
	} {
		if got := p.judgeReply(t, test.b); got != test.want {
			t.Errorf("outbound: %s: %v, want %v", test.name, got, test.want)
		}
	}
	p.endSession(p.devices.get(alice.Addrs[0]), nil)
	p.settle(alice.Addrs, false)
	for _, b := range [][]byte{
		tcpPacket("192.0.2.1:443", "10.77.0.2:1", flagACK, "late"),
		udpPacket("192.0.2.1:53", "10.77.0.2:1", "late"),
		first2(fragmented4(udpPacket("192.0.2.1:53", "10.77.0.2:1", string(make([]byte, 200))), 104)),
	} {
		if p.judgeReply(t, b) {
			t.Errorf("%x passes after the session's end", b)
		}
	}
	if got := p.judgePacket(t, later); got != drop {
		t.Errorf("a later fragment passes after the session's end")
	}
	if fs := p.flows.of(alice.Addrs); len(fs) != 1 || fs[0].kind != kindPortal {
		t.Errorf("%d flows are left of Alice's; the portal's alone should be", len(fs))
	}
}

func first2(a, _ []byte) []byte { return a }

// Sessions and freshness end by the clock alone, for flows that no packet wakes.
func TestFlowsEndByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice := testDevice(2, "alice/laptop")
		p := offlineClock(t, grants("alice -> 192.0.2.0/24 udp:53", "alice -> 192.0.2.0/24 udp:54 5m"), alice)
		if err := p.putSession(signIn(alice, 1, time.Hour)); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		cuts := make(map[uint16]time.Duration)
		cutAfter := func(port uint16) time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return cuts[port]
		}
		start := time.Now()
		for _, port := range []uint16{53, 54} {
			pk, _ := parse(udpPacket("10.77.0.2:1", fmt.Sprintf("192.0.2.1:%d", port), ""))
			_, f := p.inbound(&pk, time.Now())
			if f == nil {
				t.Fatalf("port %d is refused", port)
			}
			f.onCut(func() {
				mu.Lock()
				defer mu.Unlock()
				cuts[port] = time.Since(start)
			})
		}
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if got := cutAfter(54); got != 5*time.Minute || cutAfter(53) != 0 {
			t.Errorf("freshness of 5m ended after %v, the session's flow after %v", got, cutAfter(53))
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := cutAfter(53); got != time.Hour {
			t.Errorf("the session's flow ended after %v, want 1h", got)
		}
		if got := len(p.flows.all()); got != 0 {
			t.Errorf("%d flows left", got)
		}
		p.endSession(p.devices.get(alice.Addrs[0]), nil)
	})
}

// So do hours and grants that expire, and hours begin in time, with nobody telling.
func TestHoursByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now().UTC() // midnight, in a bubble
		alice := testDevice(2, "alice/laptop")
		day := start.Format("Mon")
		p := offlineClock(t, fmt.Sprintf(`{"grants": [
			{"src": ["alice"], "dst": ["192.0.2.0/24"], "ip": ["udp:51"], "expires": %q},
			{"src": ["alice"], "dst": ["192.0.2.0/24"], "ip": ["udp:52"], "hours": "%s 00:00-02:00 UTC", "mfa": "off"},
			{"src": ["alice"], "dst": ["192.0.2.0/24"], "ip": ["udp:53"], "hours": "%s 03:00-04:00 UTC"},
		]}`, start.Add(time.Hour).Format(time.RFC3339), day, day), alice)
		if err := p.putSession(signIn(alice, 1, 12*time.Hour)); err != nil {
			t.Fatal(err)
		}
		begin := func(port int) *flow {
			pk, _ := parse(udpPacket("10.77.0.2:1", fmt.Sprintf("192.0.2.1:%d", port), ""))
			_, f := p.inbound(&pk, time.Now())
			return f
		}
		expires, hours := begin(51), begin(52)
		if expires == nil || hours == nil || begin(53) != nil {
			t.Fatal("what is allowed at the beginning is wrong")
		}
		for _, step := range []struct {
			to                     time.Duration
			expires, hours, begins bool
		}{
			{time.Hour - 1, true, true, false},
			{time.Hour, false, true, false},
			{2*time.Hour - 1, false, true, false},
			{2 * time.Hour, false, false, false},
			{3*time.Hour - 1, false, false, false},
			{3 * time.Hour, false, false, true},
		} {
			time.Sleep(time.Until(start.Add(step.to)))
			synctest.Wait()
			if expires.dead.Load() == step.expires || hours.dead.Load() == step.hours {
				t.Errorf("after %v: the flow of the grant that expires is dead: %v; of that with hours: %v", step.to, expires.dead.Load(), hours.dead.Load())
			}
			if f := begin(53); (f != nil) != step.begins {
				t.Errorf("after %v: a flow of the hours to come begins: %v", step.to, f != nil)
			}
		}
		p.endSession(p.devices.get(alice.Addrs[0]), nil)
		p.settle(alice.Addrs, true)
	})
}

// A flow is not idle before its first packet has passed.
func TestNewFlowIsNotStale(t *testing.T) {
	alice, bob := testDevice(2, "alice/laptop"), testDevice(3, "bob/desk")
	p := offlineClock(t, grants("alice -> bob udp:53 off", "alice -> 192.0.2.0/24 udp:53 off"), alice, bob)
	now := time.Now()
	for _, to := range []string{"10.77.0.3:53", "192.0.2.1:53"} {
		pk, ok := parse(udpPacket("10.77.0.2:40000", to, "x"))
		if !ok {
			t.Fatal("the packet is not understood")
		}
		f := p.candidate(&pk, p.devices.get(pk.src), now)
		if f == nil {
			t.Fatalf("%s is not granted", to)
		}
		if f.stale(now) {
			t.Errorf("the flow to %s is taken for idle before it has begun", to)
		}
	}
}

// offlineClock is offline without goroutines or a stack, for synctest's bubble.
func offlineClock(t testing.TB, policy string, devices ...dataplane.Device) *Plane {
	p := &Plane{byKey: make(map[dataplane.Key]*peer), leaving: make(map[dataplane.Key]dataplane.Device)}
	p.services.Store(&map[netip.Addr]*dataplane.Service{})
	p.dialer = p.newDialer()
	p.link = newLink(p)
	p.gen.Store(1)
	p.devices.byAddr = make(map[netip.Addr]*peer)
	p.flows = flows{byKey: make(map[flowKey]*flow), byAddr: make(map[netip.Addr]map[*flow]struct{}), max: 100}
	p.pieces = pieces{plane: p, seen: make(map[pieceKey]pieceFate)}
	p.near.Store(&dataplane.Gateway{Addrs: []netip.Addr{gateway4, gateway6}, Network: network})
	for _, d := range devices {
		p.devices.put(newPeer(d))
	}
	p.rules.Store(compile(t, policy, devices...))
	return p
}

// A freshness chain: codes before the end prolong the flow, one after it does not.
func TestCodesProlongFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice := testDevice(2, "alice/laptop")
		p := offlineClock(t, grants("alice -> 192.0.2.0/24 udp:54 5m"), alice)
		s := signIn(alice, 1, time.Hour)
		p.putSession(s)
		pk, _ := parse(udpPacket("10.77.0.2:1", "192.0.2.1:54", ""))
		_, f := p.inbound(&pk, time.Now())
		start := time.Now()
		var cut time.Duration
		f.onCut(func() { cut = time.Since(start) })
		for i := range 3 { // at 4, 8 and 12 minutes
			time.Sleep(4 * time.Minute)
			s.Codes = append(s.Codes, dataplane.Code{Serial: uint32(i + 2), At: time.Now()})
			p.putSession(s)
			p.settle(s.Addrs, false)
		}
		time.Sleep(6 * time.Minute) // the chain broke at 17
		synctest.Wait()
		if cut < 17*time.Minute || cut > 17*time.Minute+minRecheck {
			t.Errorf("the flow ended after %v, want 17m", cut)
		}
		s.Codes = append(s.Codes, dataplane.Code{Serial: 9, At: time.Now()})
		p.putSession(s)
		if p.allowed(f, time.Now()) {
			t.Error("a later code revived the flow")
		}
		if _, g := p.inbound(&pk, time.Now()); g == nil || g == f {
			t.Errorf("a new flow does not begin with the new code")
		}
		p.endSession(p.devices.get(alice.Addrs[0]), nil)
		p.settle(alice.Addrs, true)
	})
}

func TestFlowsAreBounded(t *testing.T) {
	alice, bob := testDevice(2, "alice/laptop"), testDevice(3, "bob/desk")
	p := offline(t, grants("* -> 192.0.2.0/24 udp"), alice, bob)
	p.flows.max = 1000
	for i, d := range []dataplane.Device{alice, bob} {
		if err := p.putSession(signIn(d, uint32(i+1), time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	flood := func(addr string) (passed int) {
		for port := range 5000 {
			if p.judgePacket(t, udpPacket(addr+":7", fmt.Sprintf("192.0.2.1:%d", port+1), "")) == deliver {
				passed++
			}
		}
		return passed
	}
	if got := flood("10.77.0.2"); got != 125 {
		t.Errorf("one device has %d flows, want an eighth of 1000", got)
	}
	if got := flood("10.77.0.3"); got != 125 {
		t.Errorf("the other has %d flows, want 125", got)
	}
	// The portal has a table of its own: a device that has no room left can still sign in,
	// and one that floods the portal keeps nobody else from it.
	knock := func(addr string, times int) (passed int) {
		for port := range times {
			if p.judgePacket(t, tcpPacket(fmt.Sprintf("%s:%d", addr, port+1000), "10.77.0.1:80", flagSYN, "")) == deliver {
				passed++
			}
		}
		return passed
	}
	if got := knock("10.77.0.2", 5000); got != maxPortalFlows/8 {
		t.Errorf("one device has %d connections to the portal, want %d", got, maxPortalFlows/8)
	}
	if got := knock("10.77.0.3", 1); got != 1 {
		t.Error("the other cannot reach the portal")
	}
	for _, f := range p.flows.all() {
		if f.kind == kindPortal {
			p.cut(f)
		}
	}
	if left := p.devices.get(alice.Addrs[0]).portal; left != 0 || p.flows.portal != 0 {
		t.Errorf("%d connections to the portal are left, %d in all", left, p.flows.portal)
	}
	now := time.Now().Add(relay.UDPStreamIdle + time.Second)
	for _, f := range p.flows.all() {
		if f.stale(now) {
			p.cut(f)
		}
	}
	if len(p.flows.byKey) != 0 || len(p.flows.byAddr) != 0 || p.devices.get(alice.Addrs[0]).flows.Load() != 0 {
		t.Errorf("after going idle %d flows are left, %d addresses, %d counted", len(p.flows.byKey), len(p.flows.byAddr), p.devices.get(alice.Addrs[0]).flows.Load())
	}
}

// A flood of what is refused is not answered by a flood.
func TestRefusalsAreLimited(t *testing.T) {
	alice, bob := testDevice(2, "alice/laptop"), testDevice(3, "bob/desk")
	p := offline(t, grants(), alice, bob)
	for _, from := range []string{"10.77.0.2", "10.77.0.3"} {
		before := len(p.link.out)
		for range 10000 {
			p.receive(tcpPacket(from+":1", "192.0.2.1:443", flagSYN, ""), time.Now())
		}
		if got := len(p.link.out) - before; got < answersBurst || got > answersBurst+answersPerSecond {
			t.Errorf("%s: %d answers to 10,000 packets", from, got)
		}
	}
}

// The path of a packet through the filter does not allocate.
func TestPacketsDoNotAllocate(t *testing.T) {
	p, in, out := benchPlane(t)
	now := time.Now()
	if n := testing.AllocsPerRun(1000, func() {
		pk, _ := parse(in)
		if a, _ := p.inbound(&pk, now); a != deliver {
			t.Fatal("refused")
		}
		p.gen.Add(1) // judge anew
		pk, _ = parse(out)
		if !p.outbound(&pk, now) {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		pk, _ := parse(in)
		p.inbound(&pk, now)
		pk, _ = parse(out)
		p.outbound(&pk, now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func benchPlane(t testing.TB) (p *Plane, in, out []byte) {
	devices := make([]dataplane.Device, 200)
	for i := range devices {
		devices[i] = testDevice(byte(i+2), fmt.Sprintf("user%d/laptop", i))
	}
	p = offline(t, grants("* -> 192.0.2.0/24 udp:53", "* -> 2001:db8::/32 udp:53"), devices...)
	if err := p.putSession(signIn(devices[0], 1, time.Hour)); err != nil {
		t.Fatal(err)
	}
	return p, udpPacket("10.77.0.2:1", "192.0.2.1:53", "x"), udpPacket("192.0.2.1:53", "10.77.0.2:1", "x")
}

func BenchmarkFilter(b *testing.B) {
	p, in, out := benchPlane(b)
	now := time.Now()
	b.Run("inbound", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			pk, _ := parse(in)
			p.inbound(&pk, now)
		}
	})
	b.Run("outbound", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			pk, _ := parse(out)
			p.outbound(&pk, now)
		}
	})
	b.Run("verdict", func(b *testing.B) {
		b.ReportAllocs()
		ruleset := p.rules.Load()
		q := rules.Packet{Src: netip.MustParseAddr("10.77.0.2"), Dst: netip.MustParseAddr("192.0.2.1"), Proto: protoUDP, DstPort: 53,
			SrcSession: p.devices.get(netip.MustParseAddr("10.77.0.2")).session.Load().live(now)}
		for b.Loop() {
			ruleset.Verdict(q, now)
		}
	})
}

// Neither no sign-in nor one that has ended is worth anything.
func TestSessionThatIsNoneOpensNothing(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for what, s := range map[string]*session{"none": nil, "ended": {until: now}} {
		if got := s.live(now); got != (rules.Session{}) {
			t.Errorf("%s: worth %+v", what, got)
		}
	}
}
