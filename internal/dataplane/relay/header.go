package relay

import (
	"fmt"
	"net"
	"net/netip"

	proxyproto "github.com/pires/go-proxyproto"
)

// Types of the header's TLVs that say who calls; the PROXY protocol leaves 0xE0 to 0xEF to
// applications (section 2.2.7). Their values are names in UTF-8.
const (
	TypeUser   proxyproto.PP2Type = 0xE0
	TypeDevice proxyproto.PP2Type = 0xE1
)

// ProxyHeader is what a target is told before the caller's first byte: version 2 of the PROXY
// protocol, with the device's address, the service's, and where they are known the names of
// user and device. Addresses of two families are both told as IPv6 ones.
func ProxyHeader(c Caller) ([]byte, error) {
	h := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(unmap(c.Client)), net.TCPAddrFromAddrPort(unmap(c.Service)))
	var tlvs []proxyproto.TLV
	for _, name := range []struct {
		is    proxyproto.PP2Type
		value string
	}{{TypeUser, c.User}, {TypeDevice, c.Device}} {
		if name.value != "" {
			tlvs = append(tlvs, proxyproto.TLV{Type: name.is, Value: []byte(name.value)})
		}
	}
	if err := h.SetTLVs(tlvs); err != nil {
		return nil, fmt.Errorf("the names of who calls: %w", err)
	}
	return h.Format()
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
