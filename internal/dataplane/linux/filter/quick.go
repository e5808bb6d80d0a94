package filter

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane/linux/nft"
)

// Most packets belong to flows that have been judged before, and of that judgement only
// three things can change: the policy, the role of the device that began the flow, and
// whether its code is alive. So a flow's label says which role it was permitted to, at which
// freshness and by which set of tables; and one look-up tells whether that is still the
// device's role, in tables that are still in force, with a live code: its element goes when
// the session ends, by the same timeout, when the role changes, and with the tables.
//
// The kernel can add to a label and not change it. Flows that go on after another policy
// are judged the long way; so are those to devices, which depend on the other end as well,
// and those that a grant with "hours" or "expires" permits.

// tag tells the labels of one set of tables from those of all others, also of a vpnd before
// this one, whose flows are still tracked. It is drawn; the wrong one matches one time in
// four thousand million, and flows that another policy refuses are killed besides.
type tag uint32

// label is the first word of a label, the rest is not used; at is the index of the
// freshness in layout.fresh. It is never 0.
func (t tag) label(role uint32, at int) uint32 { return uint32(t) ^ (role<<16 | uint32(at)) }

// newTag draws a tag. It has a bit that neither roles nor indexes have, so no label is 0.
func newTag() tag {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return tag(binary.NativeEndian.Uint32(b[:]) | 0x8000)
}

// quick permits packets of flows that bear a label. It is no judgement of a flow's first
// packet, which bears none. device loads the address of the device that began the flow.
//
// The label goes by way of the packet's priority: nft(8) cannot list rules that look it up
// together with something else.
func (b *builder) quick(chain string, f nft.IP, device func(uint32) nft.Stmt, match ...[]nft.Stmt) {
	if !b.labels {
		return
	}
	reset := b.setPriority0()
	if chain == "tunnel" && f.NFProto == unix.NFPROTO_IPV4 {
		reset = nil // what is forwarded gets another one by its type of service (net/ipv4/ip_forward.c)
	}
	for _, d := range b.layout.fresh {
		mark := f.After(nft.R0)
		b.rule(chain, nft.Join(match...),
			nft.One(nft.Ct(expr.CtKeyLABELS, nft.R4), nft.SetMeta(expr.MetaKeyPRIORITY, nft.R4),
				device(nft.R0), nft.Ct(expr.CtKeyMARK, mark), nft.Meta(expr.MetaKeyPRIORITY, mark+1), b.lookup(quickSet(f, d), nft.R0)),
			b.setMark(), reset, nft.One(nft.Accept()))
	}
}

// note permits a packet whose whole flow is permitted as long as role, code and tables
// stand, and labels the flow.
func (b *builder) note(chain string, at int) {
	if b.labels {
		b.rule(chain,
			nft.One(nft.Ct(expr.CtKeyLABELS, nft.R0), nft.Cmp(expr.CmpOpEq, nft.R0, make([]byte, 16))),
			nft.One(nft.Meta(expr.MetaKeyPRIORITY, nft.R0), nft.Bitwise(nft.R0, 4, nft.Native32(most<<16), nft.Native32(b.tag.label(0, at))),
				nft.Immediate(nft.R1, make([]byte, 12)), nft.SetCt(expr.CtKeyLABELS, nft.R0)))
	}
	b.rule(chain, nft.One(b.goTo("permit")))
}

// setMark marks the packet as permitted.
func (b *builder) setMark() []nft.Stmt {
	return nft.One(
		nft.Meta(expr.MetaKeyMARK, nft.R0),
		nft.Bitwise(nft.R0, 4, nft.Native32(^b.mark), nft.Native32(b.mark)),
		nft.SetMeta(expr.MetaKeyMARK, nft.R0))
}

func quickSet(f nft.IP, d time.Duration) string { return "quick" + f.Suffix + "_" + freshName(d) }

// probeLabels adds a rule that kernels without labels refuse.
func probeLabels(b *nft.Batch, chain string) {
	b.AddRule(nft.Rule{Chain: chain, Stmts: nft.One(nft.Immediate(nft.R0, make([]byte, 16)), nft.SetCt(expr.CtKeyLABELS, nft.R0))})
}
