package linux

import (
	"crypto/subtle"
	"encoding/base64"
	"net"
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"vpnd/internal/dataplane"
)

// desired is the desired state as far as this package keeps it. Sessions and rules are
// the filter's.
type desired struct {
	gateway dataplane.Gateway
	devices map[dataplane.Key]dataplane.Device
	// services are kept for the packet filter: this host's addresses may change.
	services []dataplane.Service
}

func newDesired(s dataplane.State) *desired {
	d := &desired{gateway: s.Gateway, services: s.Services, devices: make(map[dataplane.Key]dataplane.Device, len(s.Devices))}
	d.gateway.PrivateKey = clamped(s.Gateway.PrivateKey)
	own := dataplane.Key(wgtypes.Key(s.Gateway.PrivateKey).PublicKey())
	for _, dev := range s.Devices {
		if dev.PublicKey != own { // WireGuard takes no peer with the interface's own key
			d.devices[dev.PublicKey] = dev
		}
	}
	return d
}

// gone are the devices of d whose peers next neither has nor replaces; d may be nil.
func (d *desired) gone(next *desired) (out []dataplane.Device) {
	if d == nil {
		return nil
	}
	for k, dev := range d.devices {
		if _, ok := next.devices[k]; !ok {
			out = append(out, dev)
		}
	}
	return out
}

// clamped is a private key as WireGuard keeps it and gives it back: with the bits set and
// cleared that X25519 sets and clears before use (RFC 7748, section 5). Its public key is
// the same.
func clamped(k dataplane.Key) dataplane.Key {
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return k
}

// peerDiff is what to do about a device's peers. After shrink no peer has an address
// that it should not have; put gives what is missing. The filter changes in between: at
// no moment does a peer use an address with somebody else's session.
type peerDiff struct {
	shrink, put []wgtypes.PeerConfig
	drift       []dataplane.Drift // the same, as it looks to a person if nobody asked for it
}

// diffPeers compares the peers that are there with those that should be. Endpoints and
// keepalives are the peers' own affair: they roam.
func diffPeers(have []wgtypes.Peer, want map[dataplane.Key]dataplane.Device) peerDiff {
	var d peerDiff
	seen := make(map[dataplane.Key]bool, len(have))
	for _, h := range have {
		k := dataplane.Key(h.PublicKey)
		w, ok := want[k]
		if !ok {
			d.shrink = append(d.shrink, removePeer(k))
			d.drift = append(d.drift, dataplane.Drift{What: "peer " + shortKey(k), Was: "added"})
			continue
		}
		seen[k] = true
		if samePeer(h, w) {
			continue
		}
		if keep, lost := kept(peerAddrs(h), w.Addrs); lost {
			d.shrink = append(d.shrink, trimPeer(k, keep))
		}
		d.put = append(d.put, putPeer(w))
		d.drift = append(d.drift, dataplane.Drift{What: peerName(w), Was: "changed"})
	}
	for k, w := range want {
		if !seen[k] {
			d.put = append(d.put, putPeer(w))
			d.drift = append(d.drift, dataplane.Drift{What: peerName(w), Was: "removed"})
		}
	}
	return d
}

func samePeer(h wgtypes.Peer, w dataplane.Device) bool {
	if subtle.ConstantTimeCompare(h.PresharedKey[:], w.PresharedKey[:]) != 1 || len(h.AllowedIPs) != len(w.Addrs) {
		return false
	}
	for _, n := range peerAddrs(h) {
		if !n.IsSingleIP() || !slices.Contains(w.Addrs, n.Addr()) {
			return false
		}
	}
	return true
}

// sameDevice says whether two devices of one key are the same peer.
func sameDevice(a, b dataplane.Device) bool {
	if subtle.ConstantTimeCompare(a.PresharedKey[:], b.PresharedKey[:]) != 1 || len(a.Addrs) != len(b.Addrs) {
		return false
	}
	return !slices.ContainsFunc(a.Addrs, func(x netip.Addr) bool { return !slices.Contains(b.Addrs, x) })
}

func prefixes(addrs []netip.Addr) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// peerAddrs are a peer's AllowedIPs as they are.
func peerAddrs(h wgtypes.Peer) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(h.AllowedIPs))
	for _, n := range h.AllowedIPs {
		a, _ := netip.AddrFromSlice(n.IP)
		ones, _ := n.Mask.Size()
		out = append(out, netip.PrefixFrom(a.Unmap(), ones))
	}
	return out
}

// kept are the addresses that a peer has and should have; lost says that it has others.
func kept(have []netip.Prefix, want []netip.Addr) (keep []netip.Addr, lost bool) {
	for _, h := range have {
		if h.IsSingleIP() && slices.Contains(want, h.Addr()) {
			keep = append(keep, h.Addr())
		} else {
			lost = true
		}
	}
	return keep, lost
}

// trimPeer leaves a peer that is there with the addresses keep.
func trimPeer(k dataplane.Key, keep []netip.Addr) wgtypes.PeerConfig {
	return wgtypes.PeerConfig{PublicKey: wgtypes.Key(k), UpdateOnly: true, ReplaceAllowedIPs: true, AllowedIPs: allowedIPs(keep)}
}

func removePeer(k dataplane.Key) wgtypes.PeerConfig {
	// UpdateOnly: a peer that is not there must not be made in order to be removed.
	return wgtypes.PeerConfig{PublicKey: wgtypes.Key(k), Remove: true, UpdateOnly: true}
}

// putPeer gives the whole of a peer: an address that another peer had moves here.
func putPeer(w dataplane.Device) wgtypes.PeerConfig {
	psk := wgtypes.Key(w.PresharedKey)
	return wgtypes.PeerConfig{PublicKey: wgtypes.Key(w.PublicKey), PresharedKey: &psk, ReplaceAllowedIPs: true, AllowedIPs: allowedIPs(w.Addrs)}
}

func allowedIPs(addrs []netip.Addr) []net.IPNet {
	out := make([]net.IPNet, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())})
	}
	return out
}

func peerName(d dataplane.Device) string {
	if d.Name == "" {
		return "peer " + shortKey(d.PublicKey)
	}
	return "peer " + d.Name
}

// shortKey is how wg-tools and logs shorten a public key.
func shortKey(k dataplane.Key) string {
	return base64.StdEncoding.EncodeToString(k[:])[:8] + "…"
}
