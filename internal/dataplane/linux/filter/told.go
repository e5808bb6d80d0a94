package filter

import (
	"net/netip"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane/linux/nft"
	"vpnd/internal/dataplane/linux/tell"
)

// A flow that is cut bears tell's mark until both of its ends know: whatever comes of it
// meets a reset, and nothing of it passes. Who may not have been told yet is a device that
// was removed; until its peer goes it is leaving, and has nothing but those flows.

// tellMark is carried by tell's packets: our bit and the one below it, together.
func tellMark(mark uint32) uint32 { return mark | mark>>1 }

// prioUntracked is before conntrack.
const prioUntracked = -300

// told are the rules about flows that are being told.
func (b *builder) told() {
	b.base("untracked", "filter", unix.NF_INET_LOCAL_OUT, prioUntracked)
	b.chain("cut")
	b.rule("untracked", b.telling(), nft.One(nft.Encode(&expr.Notrack{})))
	b.rule("output", b.telling(), nft.One(nft.Accept()))

	// A budget of its own: nobody who is refused can use it up.
	b.rule("cut", nft.One(nft.LimitOver(40000, 40000), nft.Drop()))
	for dir, bit := range []uint32{tell.Beginner, tell.Acceptor} {
		b.rule("cut", nft.One(
			nft.Ct(expr.CtKeyDIRECTION, nft.R0), nft.Cmp(expr.CmpOpEq, nft.R0, []byte{byte(dir)}),
			nft.Ct(expr.CtKeyMARK, nft.R0), nft.Bitwise(nft.R0, 4, nft.Native32(^bit), nft.Native32(bit)), nft.SetCt(expr.CtKeyMARK, nft.R0)))
	}
	b.rule("cut", nft.L4Proto(unix.IPPROTO_TCP), nft.One(nft.RejectReset()))
	b.rule("cut", nft.One(nft.Drop()))
}

// telling matches tell's packets.
func (b *builder) telling() []nft.Stmt {
	m := nft.Native32(tellMark(b.mark))
	return nft.One(nft.Meta(expr.MetaKeyMARK, nft.R0), nft.Bitwise(nft.R0, 4, m, make([]byte, 4)), nft.Cmp(expr.CmpOpEq, nft.R0, m))
}

// isCut matches packets of flows that are being told.
func isCut() []nft.Stmt {
	return nft.One(nft.Ct(expr.CtKeyMARK, nft.R0), nft.Bitwise(nft.R0, 4, nft.Native32(tell.MarkMask), make([]byte, 4)),
		nft.Cmp(expr.CmpOpEq, nft.R0, nft.Native32(tell.Mark)))
}

func leavingSet(f nft.IP) string { return "leaving" + f.Suffix }

// leaving matches packets whose address, as load loads it, is a leaving device's.
func (b *builder) leaving(f nft.IP, load func(uint32) nft.Stmt) []nft.Stmt {
	return nft.One(load(nft.R0), b.lookup(leavingSet(f), nft.R0))
}

// leave is how long an address is kept from everything but its cut flows after its device
// was removed. The plane takes the peer away much earlier.
const leave = 10 * time.Second

// leaving puts the element of an address.
func (c contents) leaving(a netip.Addr, until, now time.Time) {
	if until.After(now) {
		c.put(leavingSet(nft.IPOf(a)), string(a.AsSlice()), nft.Value{Until: until})
	}
}

// Told returns a channel that is closed when the ends of the flows that the last change
// cut have been told, or given up.
func (f *Filter) Told() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.told
}
