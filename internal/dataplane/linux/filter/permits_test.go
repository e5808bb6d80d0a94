package filter

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
)

func (b *bed) permits(f dataplane.Flow) bool {
	b.t.Helper()
	ok, err := b.f.Permits(b.t.Context(), f)
	if err != nil {
		b.t.Fatalf("%+v: %v", f, err)
	}
	return ok
}

// TestPermits: the answer is the kernel's, flow by flow.
func TestPermits(t *testing.T) {
	b := newBed(t, `{
		"hosts": {"wiki": "192.168.50.2", "wiki6": "fd50::2", "net": "192.168.51.0/24", "net6": "fd51::/64"},
		"grants": [
			{"src": ["autogroup:member"], "dst": ["app"], "ip": ["tcp:8080"]},
			{"src": ["alice"], "dst": ["wiki", "wiki6", "net", "net6"], "ip": ["tcp:80-443", "udp:53", "icmp"]},
			{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["tcp:5432"], "mfa": "1s"},
			{"src": ["alice"], "dst": ["wiki", "wiki6"], "ip": ["tcp:25"], "mfa": "off"},
			{"src": ["alice"], "dst": ["bob"], "ip": ["tcp:22"]},
			{"src": ["wiki", "wiki6"], "dst": ["alice"], "ip": ["tcp:7000"]},
		],
	}`, nil)
	nowhere := map[netip.Addr]netip.Addr{wiki4: netip.MustParseAddr("192.168.51.255"), wiki6: netip.MustParseAddr("fd51::ffff")}
	beyond := map[netip.Addr]netip.Addr{wiki4: netip.MustParseAddr("192.168.52.0"), wiki6: netip.MustParseAddr("fd51:0:0:1::")}
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		echo := uint8(unix.IPPROTO_ICMP)
		if wiki.Is6() {
			echo = unix.IPPROTO_ICMPV6
		}
		flows := []struct {
			what          string
			f             dataplane.Flow
			before, after bool // alice's sign-in
		}{
			{"portal", dataplane.Flow{Src: alice, Dst: gw, Proto: 6, DstPort: 80}, true, true},
			{"app", dataplane.Flow{Src: alice, Dst: gw, Proto: 6, DstPort: appPort}, false, true},
			{"another port of the gateway", dataplane.Flow{Src: alice, Dst: gw, Proto: 6, DstPort: 22}, false, false},
			{"the portal's own socket", dataplane.Flow{Src: alice, Dst: gw, Proto: 6, DstPort: portalPort}, false, false},
			{"web", dataplane.Flow{Src: alice, Dst: wiki, Proto: 6, DstPort: 80}, false, true},
			{"first port", dataplane.Flow{Src: alice, Dst: nowhere[wiki], Proto: 6, DstPort: 80}, false, true},
			{"last port", dataplane.Flow{Src: alice, Dst: nowhere[wiki], Proto: 6, DstPort: 443}, false, true},
			{"port behind", dataplane.Flow{Src: alice, Dst: nowhere[wiki], Proto: 6, DstPort: 444}, false, false},
			{"address behind", dataplane.Flow{Src: alice, Dst: beyond[wiki], Proto: 6, DstPort: 80}, false, false},
			{"dns", dataplane.Flow{Src: alice, Dst: wiki, Proto: 17, DstPort: 53}, false, true},
			{"ping", dataplane.Flow{Src: alice, Dst: wiki, Proto: echo}, false, true},
			{"sctp", dataplane.Flow{Src: alice, Dst: wiki, Proto: 132, DstPort: 80}, false, false},
			{"fresh", dataplane.Flow{Src: alice, Dst: wiki, Proto: 6, DstPort: 5432}, false, true},
			{"off", dataplane.Flow{Src: alice, Dst: wiki, Proto: 6, DstPort: 25}, true, true},
			{"bob's web", dataplane.Flow{Src: bob, Dst: wiki, Proto: 6, DstPort: 80}, false, false},
			{"to bob, who is not signed in", dataplane.Flow{Src: alice, Dst: bob, Proto: 6, DstPort: 22}, false, false},
			{"to alice", dataplane.Flow{Src: wiki, Dst: alice, Proto: 6, DstPort: 7000}, false, true},
			{"to bob", dataplane.Flow{Src: wiki, Dst: bob, Proto: 6, DstPort: 7000}, false, false},
			{"from the gateway", dataplane.Flow{Src: gw, Dst: alice, Proto: 6, DstPort: 7000}, false, false},
			{"from nobody", dataplane.Flow{Src: bob.Next().Next(), Dst: wiki, Proto: 6, DstPort: 80}, false, false},
			{"to the gateway from outside", dataplane.Flow{Src: wiki, Dst: gw, Proto: 6, DstPort: appPort}, false, false},
			{"past the tunnel", dataplane.Flow{Src: wiki, Dst: nowhere[wiki], Proto: 6, DstPort: 80}, false, false},
			{"two families", dataplane.Flow{Src: alice, Dst: map[bool]netip.Addr{true: wiki6, false: wiki4}[wiki.Is4()], Proto: 6, DstPort: 80}, false, false},
		}
		check := func(when string, after bool) {
			t.Helper()
			for _, x := range flows {
				want := x.before
				if after {
					want = x.after
				}
				if got := b.permits(x.f); got != want {
					t.Errorf("%s: %s: permits %v, want %v", when, x.what, got, want)
				}
			}
		}
		check("before sign-in", false)
		s := b.signIn("alice", time.Hour)
		check("signed in", true)
		time.Sleep(time.Until(s.Codes[0].At.Add(time.Second)))
		if b.permits(dataplane.Flow{Src: alice, Dst: wiki, Proto: 6, DstPort: 5432}) {
			t.Error("fresh, a second after the code: permits")
		}
		his := b.signIn("bob", time.Hour)
		if !b.permits(dataplane.Flow{Src: alice, Dst: bob, Proto: 6, DstPort: 22}) {
			t.Error("to bob, who is signed in: does not permit")
		}
		b.signOut(his)
		b.signOut(s)
		check("after sign-out", false)
	})
}

// TestPermitsByTheKernel: what somebody does to the table by hand shows, though the filter
// was told nothing.
func TestPermitsByTheKernel(t *testing.T) {
	b := newBed(t, simple, func(c *Config, _ *dataplane.State) { c.noOwner = true })
	b.f.watch.close() // nothing is put right
	b.state.Sessions = append(b.state.Sessions, b.signIn("alice", time.Hour))
	web, app := dataplane.Flow{Src: alice4, Dst: wiki4, Proto: 6, DstPort: 443}, dataplane.Flow{Src: alice4, Dst: gw4, Proto: 6, DstPort: appPort}
	his := dataplane.Flow{Src: bob4, Dst: wiki4, Proto: 6, DstPort: 443}
	want := func(when string, webs, apps, others bool) {
		t.Helper()
		for f, want := range map[dataplane.Flow]bool{web: webs, app: apps, his: others} {
			if got := b.permits(f); got != want {
				t.Errorf("%s: %+v: permits %v, want %v", when, f, got, want)
			}
		}
	}
	want("as it should be", true, true, false)
	runNFT(t, "insert", "rule", "inet", "vpnd", "forward", "ip", "daddr", "192.168.50.2", "drop")
	want("a rule that drops", false, true, false)
	b.f.mu.Lock()
	b.f.built = false
	b.f.mu.Unlock()
	b.set()
	want("built anew", true, true, false)
	runNFT(t, "insert", "rule", "inet", "vpnd", "tunnel4", "meta", "mark", "set", "meta", "mark", "|", "0x10000", "accept")
	want("a rule that lets everybody through", true, true, true)
	runNFT(t, "delete", "chain", "inet", "vpnd", "prerouting")
	want("nothing marks", false, false, false)
	// Routing knows no such thing as a mark for what is addressed to the gateway itself.
	runNFT(t, "delete", "table", "inet", "vpnd")
	want("without the table", false, true, false)
	if err := b.f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.f.Permits(t.Context(), web); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}
