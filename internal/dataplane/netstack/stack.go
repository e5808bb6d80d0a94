package netstack

import (
	"fmt"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const nic = 1

// maxHandshakes bounds the connections that are being dialled at one time, and
// maxDials those of one device: what never answers cannot use up everyone's share.
const (
	maxHandshakes = 1024
	maxDials      = maxHandshakes / 8
)

// newStack makes a stack that takes part in every TCP and UDP flow that the filter lets
// through to it, whatever the address: it has none of its own. It never sees ICMP.
func (p *Plane) newStack() (*stack.Stack, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	// Closed connections hold their ports; WireGuard has already kept strays away.
	wait := tcpip.TCPTimeWaitTimeoutOption(time.Second)
	// RACK makes gVisor's senders slow on links that reorder nothing.
	recovery := tcpip.TCPRecovery(0)
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 256 << 10, Max: 4 << 20}
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 256 << 10, Max: 4 << 20}
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &wait, &recovery, &rcv, &snd} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return nil, fmt.Errorf("netstack: set %T: %v", o, err)
		}
	}
	if err := s.CreateNIC(nic, linkEndpoint{p.link}); err != nil {
		return nil, fmt.Errorf("netstack: make the stack's interface: %v", err)
	}
	// Answer for, and as, any address.
	if err := s.SetPromiscuousMode(nic, true); err != nil {
		return nil, fmt.Errorf("netstack: %v", err)
	}
	if err := s.SetSpoofing(nic, true); err != nil {
		return nil, fmt.Errorf("netstack: %v", err)
	}
	s.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic},
		{Destination: header.IPv6EmptySubnet, NIC: nic},
	})
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(s, 0, maxHandshakes, p.acceptTCP).HandlePacket)
	s.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(s, p.acceptUDP).HandlePacket)
	return s, nil
}

// keyOfID is the flow of a connection request to the stack.
func keyOfID(id stack.TransportEndpointID, proto uint8) flowKey {
	return flowKey{
		src:   netip.AddrPortFrom(addrOf(id.RemoteAddress), id.RemotePort),
		dst:   netip.AddrPortFrom(addrOf(id.LocalAddress), id.LocalPort),
		proto: proto,
	}
}

func addrOf(a tcpip.Address) netip.Addr {
	b, _ := netip.AddrFromSlice(a.AsSlice())
	return b
}
