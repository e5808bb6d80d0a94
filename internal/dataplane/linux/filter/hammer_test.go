package filter

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// line is a flow between a device and a resource, both of whose ends the test plays.
type line struct {
	x          *wire
	what       string
	proto      uint8
	near, far  netip.AddrPort // the device and the resource
	nseq, fseq uint32         // TCP: what each end sends next
	sent       []uint32       // ids
}

func (x *wire) line(what string, proto uint8, device, resource netip.Addr, port uint16) *line {
	x.port = max(x.port+1, 2000)
	return &line{x: x, what: what, proto: proto, near: netip.AddrPortFrom(device, x.port),
		far: netip.AddrPortFrom(resource, port), nseq: 1000, fseq: 5000}
}

// write hands a packet to the kernel, as coming from the tunnel or from outside.
func (x *wire) write(fromTunnel bool, b []byte) {
	x.t.Helper()
	fd := x.outside
	if fromTunnel {
		fd = x.tunnel
	}
	if _, err := unix.Write(fd, b); err != nil {
		x.t.Fatal(err)
	}
}

// open sends the line's first packets. Those of TCP are a whole handshake, of which only
// the SYN carries an id.
func (l *line) open() {
	x := l.x
	x.next++
	l.sent = append(l.sent, x.next)
	if l.proto == unix.IPPROTO_UDP {
		x.write(true, udpDatagram(l.near, l.far, id4(x.next)))
		return
	}
	l.nseq = x.next
	x.write(true, tcpSegment(l.near, l.far, tcpSYN, l.nseq, 0, nil))
	l.nseq++
	x.write(false, tcpSegment(l.far, l.near, tcpSYN|tcpACK, l.fseq, l.nseq, nil))
	l.fseq++
	x.write(true, tcpSegment(l.near, l.far, tcpACK, l.nseq, l.fseq, nil))
}

// talk sends a packet each way.
func (l *line) talk() {
	x := l.x
	for _, forth := range []bool{true, false} {
		x.next++
		l.sent = append(l.sent, x.next)
		switch {
		case l.proto == unix.IPPROTO_UDP && forth:
			x.write(true, udpDatagram(l.near, l.far, id4(x.next)))
		case l.proto == unix.IPPROTO_UDP:
			x.write(false, udpDatagram(l.far, l.near, id4(x.next)))
		case forth:
			x.write(true, tcpSegment(l.near, l.far, tcpPSH|tcpACK, l.nseq, l.fseq, id4(x.next)))
			l.nseq += 4
		default:
			x.write(false, tcpSegment(l.far, l.near, tcpPSH|tcpACK, l.fseq, l.nseq, id4(x.next)))
			l.fseq += 4
		}
	}
}

func id4(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }

// through says how many of the packets since the last call came through.
func (l *line) through() (through, sent int) {
	for _, id := range l.sent {
		if l.x.arrived[id] {
			through++
		}
	}
	sent = len(l.sent)
	l.sent = nil
	return through, sent
}

// policies to change between. All of them allow "both", none "neither".
var swapped = []string{
	`{"hosts": {"wiki": "192.168.50.2", "wiki6": "fd50::2"}, "grants": [
		{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["tcp:443", "udp:53"]},
		{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["tcp:25", "udp:25"]},
	]}`,
	`{"hosts": {"wiki": "192.168.50.2", "wiki6": "fd50::2", "net": "192.168.50.0/24", "net6": "fd50::/64", "far": "192.168.99.0/25"}, "grants": [
		{"src": ["bob"], "dst": ["far"], "ip": ["tcp:1-999"], "mfa": "5m"},
		{"src": ["alice", "bob"], "dst": ["wiki", "wiki6"], "ip": ["udp:50-60"]},
		{"src": ["alice"], "dst": ["net", "net6"], "ip": ["icmp", "tcp:400-500"]},
	]}`,
	`{"hosts": {"net": "192.168.0.0/16", "net6": "fd50::/16"}, "grants": [
		{"src": ["alice"], "dst": ["net", "net6"], "ip": ["tcp:443"], "mfa": "15m"},
		{"src": ["autogroup:member"], "dst": ["net", "net6"], "ip": ["udp:53"], "mfa": "off"},
		{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]},
		{"src": ["bob"], "dst": ["net", "net6"], "ip": ["tcp:1000-2000"]},
	]}`,
}

// newFire is a wire with alice and bob signed in, under the first of the policies.
func newFire(t *testing.T) (*wire, *Filter, dataplane.State, []*rules.Ruleset) {
	t.Helper()
	gateway := dataplane.Gateway{Addrs: []netip.Addr{gw4, gw6},
		Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")}}
	x := newWire(t, way{gateway: gateway})
	f := openFilter(t)
	subjects := []rules.Subject{{Device: "alice/laptop", User: "alice", Addrs: []netip.Addr{alice4, alice6}}, {Device: "bob/phone", User: "bob", Addrs: []netip.Addr{bob4, bob6}}}
	now := time.Now()
	s := dataplane.State{Gateway: gateway}
	for i, d := range subjects {
		s.Devices = append(s.Devices, deviceOf(d))
		s.Sessions = append(s.Sessions, dataplane.Session{Device: d.Device, Addrs: d.Addrs, Until: now.Add(time.Hour), Codes: []dataplane.Code{{Serial: uint32(i + 1), At: now}}})
	}
	var ruleset []*rules.Ruleset
	for _, text := range swapped {
		p, err := language.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		r, err := rules.Compile(p, rules.Options{Network: gateway.Network, Gateway: gateway.Addrs, Session: 12 * time.Hour}, subjects)
		if err != nil {
			t.Fatal(err)
		}
		ruleset = append(ruleset, r)
	}
	s.Rules = ruleset[0]
	if err := f.Set(t.Context(), s); err != nil {
		t.Fatal(err)
	}

	return x, f, s, ruleset
}

// TestSwapUnderFire changes the policy a hundred times while packets are sent as fast as
// the kernel takes them, TCP and UDP over both families, each way. Each packet of a flow
// that all policies allow comes through, new flows included; no packet that none allows
// does; a flow that lost its permission is dead when Update returns, and stays dead.
func TestSwapUnderFire(t *testing.T) {
	x, f, _, rules := newFire(t)
	var both, neither, lost []*line
	for _, a := range [][3]netip.Addr{{alice4, bob4, wiki4}, {alice6, bob6, wiki6}} {
		alice, bob, wiki := a[0], a[1], a[2]
		both = append(both, x.line("open udp", unix.IPPROTO_UDP, alice, wiki, 53), x.line("open tcp", unix.IPPROTO_TCP, alice, wiki, 443))
		// What is refused is never tracked: each time is the first.
		neither = append(neither, x.line("udp of bob's", unix.IPPROTO_UDP, bob, wiki, 5353), x.line("tcp of bob's", unix.IPPROTO_TCP, bob, wiki, 443),
			x.line("another port", unix.IPPROTO_TCP, alice, wiki, 22), x.line("nobody's", unix.IPPROTO_UDP, bob.Next(), wiki, 53),
			x.line("towards alice", unix.IPPROTO_UDP, wiki, alice, 53))
	}
	for _, l := range both {
		l.open()
	}
	packets, news, volleys := 0, 0, 0
	volley := func() {
		t.Helper()
		var opened []*line
		// New flows now and then: each is tracked from then on, and makes Update slower.
		if volleys++; volleys&(volleys-1) == 0 {
			for _, a := range [][2]netip.Addr{{alice4, wiki4}, {alice6, wiki6}} {
				opened = append(opened, x.line("new udp", unix.IPPROTO_UDP, a[0], a[1], 53), x.line("new tcp", unix.IPPROTO_TCP, a[0], a[1], 443))
			}
		}
		for _, l := range opened {
			l.open()
		}
		for _, l := range both {
			l.talk()
		}
		for _, l := range neither {
			l.open()
		}
		all := slices.Concat(both, opened)
		want := 0
		for _, l := range all {
			want += len(l.sent)
		}
		x.look(5*time.Second, func() bool {
			n := 0
			for _, l := range all {
				for _, id := range l.sent {
					if x.arrived[id] {
						n++
					}
				}
			}
			return n == want
		})
		for _, l := range all {
			if n, sent := l.through(); n != sent {
				t.Errorf("%s from %s, which every policy allows: %d of %d packets came through", l.what, l.near, n, sent)
			}
		}
		for _, l := range neither {
			if n, _ := l.through(); n != 0 {
				t.Errorf("%s from %s, which no policy allows: %d packets came through", l.what, l.near, n)
			}
		}
		if t.Failed() {
			t.FailNow()
		}
		packets, news = packets+want, news+len(opened)
		clear(x.arrived)
	}
	quiet := func(when string) {
		t.Helper()
		for _, l := range lost {
			l.talk()
		}
		x.look(0, func() bool { return true })
		for _, l := range lost {
			if n, _ := l.through(); n != 0 {
				t.Fatalf("%s, protocol %d from %s, %s: %d packets came through", l.what, l.proto, l.near, when, n)
			}
		}
	}
	begin := time.Now()
	for i := range 100 {
		which := (i + 1) % len(rules)
		if which == 1 { // the next policy takes away what the first allows
			for _, a := range [][2]netip.Addr{{alice4, wiki4}, {alice6, wiki6}} {
				for _, proto := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
					l := x.line("a flow that lost its permission", proto, a[0], a[1], 25)
					l.open()
					l.talk()
					lost = append(lost, l)
				}
			}
			x.look(0, func() bool { return true })
			for _, l := range lost {
				if n, sent := l.through(); n != sent {
					t.Fatalf("%s: before, %d of %d packets came through", l.what, n, sent)
				}
			}
		}
		volleys = 0
		done := make(chan error, 1)
		go func() { done <- f.Update(context.Background(), dataplane.Change{Rules: rules[which]}) }()
		for updating := true; updating; {
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				updating = false
			default:
				volley()
			}
		}
		when := "after Update"
		if which == 0 {
			// It is allowed again: a TCP flow that was cut begins again by a SYN only.
			when = "allowed again"
			lost = slices.DeleteFunc(lost, func(l *line) bool { return l.proto == unix.IPPROTO_UDP })
		}
		quiet(when)
		volley()
		if which == 0 {
			lost = nil
		}
		time.Sleep(time.Duration(i%4) * grace / 2) // before, while and after the old rules are swept up
	}
	t.Logf("100 changes of policy in %v, %d packets of flows that all policies allow, %d of them first ones", time.Since(begin).Round(time.Millisecond), packets, news)
}

// TestRebuildUnderFire builds the whole table anew, as after a crash or when somebody has
// changed it: what was permitted may wait for a moment, but is not refused.
func TestRebuildUnderFire(t *testing.T) {
	x, f, s, rules := newFire(t)
	s.Rules = rules[2]
	if err := f.Set(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	var tcp, bobs []*line
	for _, a := range [][3]netip.Addr{{alice4, bob4, wiki4}, {alice6, bob6, wiki6}} {
		tcp = append(tcp, x.line("open tcp", unix.IPPROTO_TCP, a[0], a[2], 443))
		bobs = append(bobs, x.line("udp of bob's", unix.IPPROTO_UDP, a[1], a[2], 5353))
	}
	for _, l := range tcp {
		l.open()
	}
	for range 30 {
		f.mu.Lock()
		f.built = false
		f.mu.Unlock()
		done := make(chan error, 1)
		go func() { done <- f.Set(context.Background(), s) }()
		for building := true; building; {
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				building = false
			default:
				for _, l := range tcp {
					l.talk()
				}
				for _, l := range bobs {
					l.open()
				}
				x.look(0, func() bool { return true })
			}
		}
		for _, l := range bobs {
			if n, _ := l.through(); n != 0 {
				t.Fatalf("%s from %s, which is not allowed: %d packets came through", l.what, l.near, n)
			}
		}
		for _, l := range tcp {
			l.through()
			l.talk()
			x.look(0, func() bool { return true })
			if n, sent := l.through(); n != sent || x.resets != 0 {
				t.Fatalf("%s from %s after the table was built anew: %d of %d packets came through, %d resets came", l.what, l.near, n, sent, x.resets)
			}
		}
	}
}
