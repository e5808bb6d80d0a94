package run

import (
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane/linux/nft"
)

// Statements that other people's rules are made of: nft(8)'s address types, and the
// extensions of iptables that ufw, Docker and people use (iptables-nft).

func decodeFib(a nft.Attributes) (Step, error) {
	to, err := a.Register(unix.NFTA_FIB_DREG)
	typeOfDst := a.U32(unix.NFTA_FIB_RESULT) == unix.NFT_FIB_RESULT_ADDRTYPE && a.U32(unix.NFTA_FIB_FLAGS)&unix.NFTA_FIB_F_DADDR != 0
	return func(m *Machine) (bool, error) {
		if typeOfDst && m.Packet.Local {
			return true, m.load(to, nft.Native32(unix.RTN_LOCAL))
		}
		m.forget(to, 4)
		return true, nil
	}, err
}

func decodeMatch(a nft.Attributes) (Step, error) {
	name := a.Str(unix.NFTA_MATCH_NAME)
	if name == "limit" || name == "comment" {
		return nil, nil
	}
	info, err := xt.Unmarshal(name, xt.TableFamily(unix.NFPROTO_IPV4), a.U32(unix.NFTA_MATCH_REV), a[unix.NFTA_MATCH_INFO])
	if err != nil {
		return cannotTell("match %q: %v", name, err), nil
	}
	return func(m *Machine) (bool, error) {
		p := &m.Packet
		switch x := info.(type) {
		case *xt.Tcp:
			if x.SrcPorts != [2]uint16{0, 0xffff} || x.FlagsMask != 0 {
				return false, unknown("match %q looks at more than the port", name)
			}
			in := x.DstPorts[0] <= p.Port && p.Port <= x.DstPorts[1]
			return p.Flow.Proto == unix.IPPROTO_TCP && in != (x.InvFlags&xt.TcpInvDestPorts != 0), nil
		case *xt.Udp:
			if x.SrcPorts != [2]uint16{0, 0xffff} {
				return false, unknown("match %q looks at more than the port", name)
			}
			in := x.DstPorts[0] <= p.Port && p.Port <= x.DstPorts[1]
			return p.Flow.Proto == unix.IPPROTO_UDP && in != (x.InvFlags&xt.UdpInvDestPorts != 0), nil
		case *xt.ConntrackMtinfo3:
			if xt.ConntrackFlags(x.MatchFlags) != xt.ConntrackState {
				return false, unknown("match %q looks at more than the state", name)
			}
			state := uint16(1 << 3) // XT_CONNTRACK_STATE_BIT(IP_CT_NEW)
			if p.Established {
				state = 1 << 1
			}
			return (x.StateMask&state != 0) != (xt.ConntrackFlags(x.InvertFlags)&xt.ConntrackState != 0), nil
		case *xt.AddrTypeV1:
			if x.Source == 0 && x.Flags == 0 && p.Local {
				return x.Dest&(1<<unix.RTN_LOCAL) != 0, nil
			}
		}
		return false, unknown("match %q", name)
	}, nil
}
