package filter

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// labelled tells which of the flows from src to dst bear a label.
func (b *bed) labelled(src, dst netip.Addr) (yes, no int) {
	b.t.Helper()
	conn, err := conntrack.Dial(&netlink.Config{})
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	flows, err := conn.Dump(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range flows {
		if f.TupleOrig.IP.SourceAddress != src || f.TupleOrig.IP.DestinationAddress != dst {
			continue
		}
		if len(bytes.Trim(f.Labels, "\x00")) > 0 {
			yes++
		} else {
			no++
		}
	}
	return yes, no
}

const byGroup = `{
	"groups": {"group:staff": [%s]},
	"hosts": {"wiki": "192.168.50.2", "wiki6": "fd50::2"},
	"grants": [
		{"src": ["group:staff"], "dst": ["wiki", "wiki6"], "ip": ["tcp:443", "udp:53"]},
		{"src": ["autogroup:member"], "dst": ["wiki", "wiki6"], "ip": ["tcp:80"], "expires": "2100-01-01T00:00:00Z"},
		{"src": ["autogroup:member"], "dst": ["autogroup:member"], "ip": ["udp:7"]},
	],
}`

// TestQuick: flows are labelled where the short way may judge them, and whatever takes the
// permission away holds for them at once.
func TestQuick(t *testing.T) {
	b := newBed(t, "{}", nil)
	if !b.f.kernel.labels {
		t.Fatal("this kernel has no labels")
	}
	subjects := []rules.Subject{b.users["alice"], b.users["bob"]}
	b.state.Rules = stored(t, b, fmt.Sprintf(byGroup, `"alice", "bob"`), subjects)
	b.set()
	b.serveWiki()
	for _, a := range []netip.Addr{bob4, bob6} {
		b.serve("bob", "bob", a, 7)
	}
	families(t, b, func(t *testing.T, _, alice, bob, wiki netip.Addr) {
		want := func(when string, dst netip.Addr, wantYes, wantNo int) {
			t.Helper()
			if yes, no := b.labelled(alice, dst); yes != wantYes || no != wantNo {
				t.Errorf("%s: %d flows with a label and %d without, want %d and %d", when, yes, no, wantYes, wantNo)
			}
		}
		s, s2 := b.signIn("alice", time.Hour), b.signIn("bob", time.Hour)
		tcp := b.open("alice", wiki, 443)
		udp := b.dialUDP("alice", wiki, 53)
		b.alive("udp", udp)
		b.alive("tcp", tcp)
		want("open flows", wiki, 2, 0)
		timed := b.open("alice", wiki, 80)
		want("one by a grant that ends", wiki, 2, 1)
		if _, err := b.udp("alice", bob, 7); err != nil {
			t.Error(err)
		}
		want("to a device", bob, 0, 1)

		// Out of the group: her flows by it are dead when Update returns, others live.
		others := b.open("bob", wiki, 443)
		put := []dataplane.Device{b.device("alice")}
		move := func(members string) {
			t.Helper()
			next, users, ok := b.f.policy.Regroup(fmt.Sprintf(byGroup, members))
			if !ok || strings.Join(users, " ") != "alice" {
				t.Fatalf("regrouping: %v %v", users, ok)
			}
			before := b.f.suffix
			b.update(dataplane.Change{Rules: next.With(subjects[:1], nil), PutDevices: put})
			if b.f.suffix != before {
				t.Fatal("the tables were made anew")
			}
		}
		move(`"bob"`)
		b.dead("tcp, out of the group", tcp)
		b.dead("udp, out of the group", udp)
		b.alive("by another grant", timed)
		b.alive("somebody else's", others)
		got, err := b.tcp("alice", wiki, 443)
		b.refused("a new one, out of the group", got, err)
		move(`"alice", "bob"`)
		b.alive("udp, in the group again", udp)
		tcp = b.open("alice", wiki, 443)
		b.alive("somebody else's", others)
		b.alive("by another grant", timed)

		// Another policy: what it permits goes on, the long way.
		b.update(dataplane.Change{Rules: stored(t, b, strings.Replace(fmt.Sprintf(byGroup, `"alice", "bob"`), "udp:53", "udp:54", 1), subjects)})
		b.alive("tcp, with another policy", tcp)
		b.dead("udp, with another policy", udp)
		b.update(dataplane.Change{Rules: stored(t, b, fmt.Sprintf(byGroup, `"alice", "bob"`), subjects)})
		b.alive("tcp, with the first policy again", tcp)
		b.signOut(s)
		b.dead("tcp, signed out", tcp)
		b.dead("timed, signed out", timed)
		b.signOut(s2)
	})
	if difference, err := b.f.verify(); difference != "" || err != nil {
		t.Errorf("the table differs: %s %v", difference, err)
	}
}

// TestLabelIsNoPass: a label opens nothing for another address, mark or set of tables, and
// a packet that comes in elsewhere cannot use it.
func TestLabelIsNoPass(t *testing.T) {
	a, b := newTag(), newTag()
	seen := map[uint32]string{}
	for _, x := range []tag{a, b} {
		for _, role := range []uint32{0, 1, 2, 77, most} {
			for at := range 5 {
				n := x.label(role, at)
				if n == 0 {
					t.Errorf("tag %#x, role %d, freshness %d: the label is 0", x, role, at)
				}
				what := fmt.Sprint(x, role, at)
				if other, ok := seen[n]; ok {
					t.Errorf("%s and %s have one label", what, other)
				}
				seen[n] = what
			}
		}
	}
	// The stranger's network sends what alice's device might, with her flow labelled.
	bed := newBed(t, simple, nil)
	bed.serveWiki()
	s := bed.signIn("alice", time.Hour)
	udp := bed.dialUDP("alice", wiki4, 53)
	bed.alive("udp", udp)
	sh(t, "ip -n stranger addr add 10.77.0.2/32 dev lo")
	spoof, err := in(bed, "stranger", func() (net.Conn, error) {
		d := net.Dialer{LocalAddr: udp.LocalAddr()}
		return d.Dial("udp", udp.RemoteAddr().String())
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = spoof.Close() }()
	if _, err := spoof.Write([]byte("spoofed")); err != nil {
		t.Fatal(err)
	}
	bed.alive("udp", udp) // and no answer to what she did not send
	bed.signOut(s)
	bed.dead("udp, signed out", udp)
}

// stored compiles a policy as the reconciler does.
func stored(t *testing.T, b *bed, text string, subjects []rules.Subject) *rules.Ruleset {
	t.Helper()
	p, err := language.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	r, err := rules.Compile(p, rules.Options{Network: b.state.Gateway.Network, Gateway: b.state.Gateway.Addrs, Session: 12 * time.Hour, Stored: true}, subjects)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
