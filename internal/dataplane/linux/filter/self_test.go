package filter

import (
	"net/netip"
	"testing"
	"time"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// TestSelf: autogroup:self opens a user's own devices to each other.
func TestSelf(t *testing.T) {
	b := newBed(t, `{"grants": []}`, nil)
	phone := rules.Subject{Device: "alice/phone", User: "alice", Addrs: []netip.Addr{bob4, bob6}} // at bob's place
	b.users["bob"] = phone
	b.state.Devices = []dataplane.Device{b.device("alice")}
	b.users["bob"] = rules.Subject{Device: "nobody", User: "carol"}
	b.state.Rules = b.compile(`{"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["tcp:7000"]}]}`)
	b.set()
	b.users["bob"] = phone
	device := b.device("bob")
	ruleset := b.state.Rules.With([]rules.Subject{phone}, nil)
	b.update(dataplane.Change{PutDevices: []dataplane.Device{device}, Rules: ruleset})
	b.serve("bob", "phone", bob4, 7000)
	b.serve("bob", "phone", bob6, 7000)
	defer b.signOut(b.signIn("alice", time.Hour))
	defer b.signOut(b.signIn("bob", time.Hour))
	families(t, b, func(t *testing.T, gw, alice, bob, wiki netip.Addr) {
		got, err := b.tcp("alice", bob, 7000)
		b.want("to the own phone", "phone", got, err)
	})
	c := b.open("alice", bob4, 7000)
	// The phone becomes somebody else's.
	his := rules.Subject{Device: "bob/phone", User: "bob", Addrs: phone.Addrs}
	b.update(dataplane.Change{PutDevices: []dataplane.Device{device}, Rules: ruleset.With([]rules.Subject{his}, nil)})
	got, err := b.tcp("alice", bob4, 7000)
	b.refused("to another's phone", got, err)
	b.dead("the flow that was open", c)
}
