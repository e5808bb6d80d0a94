package bind

import (
	"net"
	"net/netip"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
)

// Endpoint is where a peer is, and the address of ours that it knows. Both are fixed; a
// message from elsewhere brings an Endpoint of its own.
type Endpoint struct {
	dst netip.AddrPort
	src netip.Addr // invalid: as routing chooses
	// ifindex is src's interface where the address alone does not say it (IPv6 link-local).
	ifindex uint32
	to      net.UDPAddr // dst, as the socket wants it

	// gone: the host has src no more.
	gone  atomic.Bool
	noted atomic.Bool // by Bind.note
	// doubts counts ClearSrc.
	doubts atomic.Uint32
}

var _ conn.Endpoint = (*Endpoint)(nil)

// NewEndpoint is the peer at dst; it is sent to from src, if that is valid.
func NewEndpoint(dst netip.AddrPort, src netip.Addr) *Endpoint {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	e := &Endpoint{dst: dst, to: *net.UDPAddrFromAddrPort(dst)}
	if src = src.Unmap(); src.Is4() == dst.Addr().Is4() && !src.IsUnspecified() {
		e.src = src
	}
	return e
}

// same says whether a message from a peer at dst, that came to where a says, is from e.
func (e *Endpoint) same(dst netip.AddrPort, a arrival) bool {
	return e.dst == dst && e.src == a.to && (e.ifindex == 0 || e.ifindex == a.ifindex)
}

// ClearSrc implements conn.Endpoint. WireGuard calls it when a peer is silent: the source
// may be the cause, but no other passes a NAT or a stateful filter before the peer. So the
// next message still has the source, the one after the next doubt has not, and so on.
func (e *Endpoint) ClearSrc() { e.doubts.Add(1) }

// source is where the next message leaves from; invalid: as routing chooses.
func (e *Endpoint) source() netip.Addr {
	if n := e.doubts.Load(); e.gone.Load() || n > 0 && n%2 == 0 {
		return netip.Addr{}
	}
	return e.src
}

// The other methods of conn.Endpoint.

func (e *Endpoint) SrcIP() netip.Addr   { return e.source() }
func (e *Endpoint) DstIP() netip.Addr   { return e.dst.Addr() }
func (e *Endpoint) DstToString() string { return e.dst.String() }

func (e *Endpoint) SrcToString() string {
	if s := e.source(); s.IsValid() {
		return s.String()
	}
	return ""
}

func (e *Endpoint) DstToBytes() []byte {
	b, _ := e.dst.MarshalBinary() // it cannot fail
	return b
}
