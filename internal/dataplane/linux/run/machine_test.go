package run

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux/nft"
)

// chains are rules without a kernel.
type chains map[string][][]Step

func (c chains) Hooked(string, uint32) (bool, error) { return true, nil }
func (c chains) Rules(name string) ([][]Step, error) { return c[name], nil }
func (c chains) Find(set string, _ []byte) (Mapped, bool, error) {
	return Mapped{}, false, fmt.Errorf("no set %s", set)
}

func steps(t *testing.T, parts ...[]nft.Stmt) []Step {
	t.Helper()
	var list []netlink.Attribute
	for _, s := range nft.Join(parts...) {
		list = append(list, netlink.Attribute{Type: unix.NFTA_LIST_ELEM | unix.NLA_F_NESTED, Data: s})
	}
	b, err := netlink.MarshalAttributes(list)
	if err != nil {
		t.Fatal(err)
	}
	out, err := DecodeRule(b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestUnknown: a rule of which nobody can tell whether it matches is taken for one that does
// not, and that is said; what does not depend on it raises no doubt.
func TestUnknown(t *testing.T) {
	from := nft.Join([]nft.Stmt{nft.IP4.LoadSrc(nft.R0), nft.Cmp(expr.CmpOpEq, nft.R0, []byte{192, 0, 2, 1})})
	port := []nft.Stmt{nft.Payload(expr.PayloadBaseTransportHeader, 2, 2, nft.R0), nft.Cmp(expr.CmpOpEq, nft.R0, []byte{0, 80})}
	strange := []nft.Stmt{nft.Encode(&expr.Quota{Bytes: 1})}
	partial := Packet{Partial: true, Flow: dataplane.Flow{Proto: unix.IPPROTO_TCP}, Port: 80, IIF: "x", OIF: "y"}
	whole := Packet{Flow: dataplane.Flow{Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.9"), Proto: unix.IPPROTO_TCP, DstPort: 80},
		Dst: netip.MustParseAddr("192.0.2.9"), Port: 80, IIF: "x"}
	for _, x := range []struct {
		name   string
		packet Packet
		rules  [][]Step
		want   Fate
		doubt  bool
	}{
		{"a known port", partial, [][]Step{steps(t, port, nft.One(nft.Accept()))}, Accepted, false},
		{"an unknown source", partial, [][]Step{steps(t, from, nft.One(nft.Drop()))}, Undecided, true},
		{"a known source", whole, [][]Step{steps(t, from, nft.One(nft.Drop()))}, Dropped, false},
		{"an unknown statement", whole, [][]Step{steps(t, port, strange, nft.One(nft.Drop()))}, Undecided, true},
		{"one that is not come to", whole, [][]Step{steps(t, port, nft.One(nft.Accept())), steps(t, strange, nft.One(nft.Drop()))}, Accepted, false},
		{"one in a rule that does not match", partial, [][]Step{steps(t, nft.L4Proto(unix.IPPROTO_UDP), strange, nft.One(nft.Drop()))}, Undecided, false},
		{"an unknown value that is replaced", partial, [][]Step{steps(t, from[:1], port, nft.One(nft.Accept()))}, Accepted, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			m := &Machine{From: chains{"c": x.rules}, Packet: x.packet}
			got, err := m.Run("c")
			if err != nil || got != x.want || (m.Doubt != nil) != x.doubt {
				t.Errorf("%v with doubt %v, %v; want %v", got, m.Doubt, err, x.want)
			}
		})
	}
}
