package filter

import (
	"bytes"
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane/linux/nft"
	"vpnd/internal/dataplane/linux/run"
)

// walk follows one packet through a table. What it cannot tell it takes for a rule that
// does not match, so it may complain too often rather than too seldom.
type walk struct {
	*ruleset
	packet traced
	where  string  // the chain that dropped it
	unread []error // what could not be read on the way
}

// registers of 4 bytes; nil stands for an unknown value.
type registers map[uint32][]byte

func (w *walk) chain(name string, depth int) run.Fate {
	if depth > 16 {
		return run.Undecided
	}
	rules, err := w.rules(name)
	if err != nil {
		w.unread = append(w.unread, err)
		return run.Undecided
	}
	for _, r := range rules {
		verdict, target, ok := w.rule(r)
		if !ok {
			continue
		}
		switch verdict {
		case expr.VerdictAccept:
			return run.Accepted
		case expr.VerdictDrop:
			w.where = name
			return run.Dropped
		case expr.VerdictReturn:
			return run.Undecided
		case expr.VerdictJump, expr.VerdictGoto:
			if f := w.chain(target, depth+1); f != run.Undecided || verdict == expr.VerdictGoto {
				return f
			}
		}
	}
	return run.Undecided
}

// rule says where a rule sends the packet; ok is false if it does not match, does
// nothing with it, or cannot be understood.
func (w *walk) rule(r *nftables.Rule) (verdict expr.VerdictKind, target string, ok bool) {
	regs := registers{}
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Meta:
			if !e.SourceRegister {
				regs[e.Register] = w.meta(e.Key)
			}
		case *expr.Payload:
			regs[e.DestRegister] = w.payload(e)
		case *expr.Ct:
			regs[e.Register] = w.ct(e.Key)
		case *expr.Fib:
			regs[e.Register] = nil
			if e.ResultADDRTYPE && e.FlagDADDR && w.packet.local {
				regs[e.Register] = nft.Native32(unix.RTN_LOCAL)
			}
		case *expr.Immediate:
			regs[e.Register] = e.Data
		case *expr.Bitwise:
			v := regs[e.SourceRegister]
			if v == nil || len(v) < len(e.Mask) || len(e.Mask) == 0 {
				regs[e.DestRegister] = nil
				continue
			}
			x := make([]byte, len(e.Mask))
			for i := range x {
				x[i] = v[i]&e.Mask[i] ^ e.Xor[i]
			}
			regs[e.DestRegister] = x
		case *expr.Cmp:
			if !run.Matches(e, regs[e.Register]) {
				return 0, "", false
			}
		case *expr.Range:
			v := regs[e.Register]
			if v == nil {
				return 0, "", false
			}
			within := bytes.Compare(v, e.FromData) >= 0 && bytes.Compare(v, e.ToData) <= 0
			if within != (e.Op == expr.CmpOpEq) {
				return 0, "", false
			}
		case *expr.Lookup:
			v := regs[e.SourceRegister]
			if v == nil || e.IsDestRegSet {
				return 0, "", false // unknown, or a verdict map
			}
			if in, err := w.inSet(e, v); err != nil || in == e.Invert {
				return 0, "", false
			}
		case *expr.Match:
			if !w.match(e) {
				return 0, "", false
			}
		case *expr.Reject:
			return expr.VerdictDrop, "", true
		case *expr.Target:
			switch e.Name {
			case "REJECT", "DROP":
				return expr.VerdictDrop, "", true
			}
		case *expr.Verdict:
			return e.Kind, e.Chain, true
		}
	}
	return 0, "", false
}

func (w *walk) meta(key expr.MetaKey) []byte {
	name := func(s string) string {
		if s == "" {
			return run.Elsewhere
		}
		return s
	}
	switch key {
	case expr.MetaKeyIIFNAME:
		return nft.IfName(name(w.packet.iif))
	case expr.MetaKeyOIFNAME:
		return nft.IfName(name(w.packet.oif))
	case expr.MetaKeyIIF:
		return nft.Native32(uint32(index(name(w.packet.iif))))
	case expr.MetaKeyOIF:
		return nft.Native32(uint32(index(name(w.packet.oif))))
	case expr.MetaKeyL4PROTO:
		return []byte{w.packet.proto}
	case expr.MetaKeyNFPROTO:
		if w.table.Family == nftables.TableFamilyIPv6 {
			return []byte{unix.NFPROTO_IPV6}
		}
		return []byte{unix.NFPROTO_IPV4}
	case expr.MetaKeyPKTTYPE:
		return []byte{unix.PACKET_HOST}
	}
	return nil
}

func (w *walk) payload(e *expr.Payload) []byte {
	switch {
	case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2 && e.Len == 2:
		return binary.BigEndian.AppendUint16(nil, w.packet.dport)
	case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == 9 && e.Len == 1 && w.table.Family != nftables.TableFamilyIPv6:
		return []byte{w.packet.proto}
	}
	return nil
}

func (w *walk) ct(key expr.CtKey) []byte {
	switch key {
	case expr.CtKeySTATE:
		if w.packet.established {
			return nft.Native32(expr.CtStateBitESTABLISHED)
		}
		return nft.Native32(expr.CtStateBitNEW)
	case expr.CtKeySTATUS:
		return nft.Native32(0)
	}
	return nil
}

// match understands the extensions of iptables that ufw, Docker and people use.
func (w *walk) match(e *expr.Match) bool {
	p := w.packet
	switch x := e.Info.(type) {
	case *xt.Comment:
		return true
	case *xt.Tcp:
		in := x.DstPorts[0] <= p.dport && p.dport <= x.DstPorts[1]
		return p.proto == unix.IPPROTO_TCP && in != (x.InvFlags&xt.TcpInvDestPorts != 0) &&
			x.SrcPorts == [2]uint16{0, 0xffff} && x.FlagsMask == 0
	case *xt.Udp:
		in := x.DstPorts[0] <= p.dport && p.dport <= x.DstPorts[1]
		return p.proto == unix.IPPROTO_UDP && in != (x.InvFlags&xt.UdpInvDestPorts != 0) && x.SrcPorts == [2]uint16{0, 0xffff}
	case *xt.ConntrackMtinfo3:
		if xt.ConntrackFlags(x.MatchFlags) != xt.ConntrackState {
			return false
		}
		state := uint16(1 << 3) // XT_CONNTRACK_STATE_BIT(IP_CT_NEW)
		if p.established {
			state = 1 << 1
		}
		return (x.StateMask&state != 0) != (xt.ConntrackFlags(x.InvertFlags)&xt.ConntrackState != 0)
	case *xt.AddrTypeV1:
		return x.Source == 0 && x.Flags == 0 && p.local && x.Dest&(1<<unix.RTN_LOCAL) != 0
	}
	return e.Name == "limit" || e.Name == "comment"
}
