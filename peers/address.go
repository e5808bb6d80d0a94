package peers

import (
	"encoding/binary"
	"math"
	"net/netip"
)

// A device has the same place ("host") in each prefix of the network: host 0 is the
// prefix's own address, 1 the gateway's, 2 up to half of the prefix are devices', and
// the upper half is kept for published resources. New places are given in order; those
// that were released only when no new one is left, the longest released first, so that
// an address does not soon come back as somebody else's.

const firstHost = 2

// hosts is the first place that no device can have.
func hosts(network []netip.Prefix) uint32 {
	end := uint32(math.MaxUint32)
	for _, p := range network {
		end = min(end, size(p)/2)
	}
	return end
}

// size is the number of a prefix's addresses, or 2^32-1 where it has more.
func size(p netip.Prefix) uint32 {
	if free := p.Addr().BitLen() - p.Bits(); free < 32 {
		return 1 << free
	}
	return math.MaxUint32
}

// addrAt returns the address at a place of a prefix.
func addrAt(p netip.Prefix, host uint32) (netip.Addr, bool) {
	if host >= size(p) {
		return netip.Addr{}, false
	}
	if p.Addr().Is4() {
		b := p.Addr().As4()
		n := binary.BigEndian.Uint32(b[:])
		binary.BigEndian.PutUint32(b[:], n|host)
		return netip.AddrFrom4(b), true
	}
	b := p.Addr().As16()
	n := binary.BigEndian.Uint32(b[12:])
	binary.BigEndian.PutUint32(b[12:], n|host)
	return netip.AddrFrom16(b), true
}

// GatewayAddrs returns the gateway's tunnel addresses: the first of each prefix.
func (s Settings) GatewayAddrs() []netip.Addr { return s.addrs(1) }

// addrs are the addresses at a place, one of each prefix.
func (s Settings) addrs(host uint32) []netip.Addr {
	addrs := make([]netip.Addr, 0, len(s.Network))
	for _, p := range s.Network {
		if a, ok := addrAt(p, host); ok {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// host is the place of an address; ok is false if it is in no prefix of the network, or
// has no place of 32 bits.
func (s *Settings) host(a netip.Addr) (host uint32, ok bool) {
	for _, p := range s.Network {
		if !p.Contains(a) {
			continue
		}
		b := a.AsSlice()
		host = binary.BigEndian.Uint32(b[len(b)-4:])
		if n := size(p); n != math.MaxUint32 {
			host &= n - 1
		}
		at, ok := addrAt(p, host)
		return host, ok && at == a
	}
	return 0, false
}

// takeHost finds a place for a device. Its second half, called when nothing can be
// refused any more, takes it.
func (t *tx) takeHost() (host uint32, take func(), err error) {
	end := hosts(t.m.Settings.Network)
	if t.m.NextHost < end {
		return t.m.NextHost, func() { t.m.NextHost++ }, nil
	}
	if r := first[released](t, tableReleased, byID); r != nil {
		return r.Host, func() { t.delete(tableReleased, r) }, nil
	}
	return 0, nil, refuse("addresses_full", end-firstHost, prefixes(t.m.Settings.Network))
}

func (t *tx) releaseHost(d *Device) {
	host, ok := t.m.Settings.host(d.Addrs[0])
	if !ok {
		return
	}
	t.m.Releases++
	t.put(tableReleased, &released{t.m.Releases, host})
}
