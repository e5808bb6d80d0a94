package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"

	"vpnd/internal/dataplane"
)

// Forwarding is a property of the interface by which a packet comes in. The tunnel's
// own is switched on with the interface. The answers of what is behind the gateway come
// in by the interfaces that lead there: where the host did not forward from them, it is
// switched on and guarded by a routing rule, so that it serves the tunnel alone.
//
// IPv6 has a switch for single interfaces since Linux 6.17 (force_forwarding). Before,
// there is only the one for the whole host, which also makes a router of it that takes
// no more router advertisements: that part is put back at once, interface by interface.

const (
	all4 = "net/ipv4/conf/all/forwarding" // the same as net.ipv4.ip_forward
	all6 = "net/ipv6/conf/all/forwarding"
)

func conf4(iface, name string) string { return "net/ipv4/conf/" + iface + "/" + name }
func conf6(iface, name string) string { return "net/ipv6/conf/" + iface + "/" + name }

// planForwarding finds out which interfaces must be guarded. It changes nothing, apart
// from forgetting what the host's owner has taken over.
func (p *Plane) planForwarding() (guards, error) {
	var g guards
	host, err := p.sys.get(all4)
	if err != nil {
		return g, fmt.Errorf("reading sysctl %s: %w", dotted(all4), err)
	}
	if was, ok := p.sys.was(all4); ok && was == "0" && host == "1" {
		if err := p.forgetForwarding("net/ipv4"); err != nil {
			return g, err
		}
	}
	if _, ok := p.sys.was(all6); ok && p.wants6() {
		// The switch was put on by us, and the default back to 0: whoever switches it on
		// again sets the default as well.
		_, known := p.sys.was(conf6("default", "forwarding"))
		v, err := p.sys.get(conf6("default", "forwarding"))
		if err != nil {
			return g, fmt.Errorf("reading sysctl %s: %w", dotted(conf6("default", "forwarding")), err)
		}
		if v == "1" && !known {
			if err := p.forgetForwarding("net/ipv6"); err != nil {
				return g, err
			}
		}
	}
	// What could not be read is guarded as if the host did not forward there; an interface
	// that is gone needs no guard.
	off := func(key string) bool {
		if was, ok := p.sys.was(key); ok {
			return was == "0"
		}
		v, err := p.sys.get(key)
		return err == nil && v == "0" || err != nil && !errors.Is(err, fs.ErrNotExist)
	}
	for _, i := range p.outs.v4 {
		if off(conf4(i, "forwarding")) {
			g.v4 = append(g.v4, i)
		}
	}
	for _, k := range p.sys.keys("net/ipv4/conf/*/forwarding") { // not given back yet
		if i := keyIface(k); k != all4 && off(k) && !slices.Contains(g.v4, i) {
			g.v4 = append(g.v4, i)
		}
	}
	slices.Sort(g.v4)
	if !p.wants6() {
		return g, nil
	}
	if !p.forceForwarding() {
		g.all6 = off(all6)
		return g, nil
	}
	if v, err := p.sys.get(all6); err != nil || v != "0" {
		return g, err
	}
	for _, i := range p.outs.v6 {
		if off(conf6(i, "force_forwarding")) {
			g.v6 = append(g.v6, i)
		}
	}
	for _, k := range p.sys.keys("net/ipv6/conf/*/force_forwarding") {
		if i := keyIface(k); off(k) && !slices.Contains(g.v6, i) {
			g.v6 = append(g.v6, i)
		}
	}
	slices.Sort(g.v6)
	return g, nil
}

// forgetForwarding leaves forwarding as it is for good: the owner has switched it on
// meanwhile, and it is no longer ours to guard or to switch off.
func (p *Plane) forgetForwarding(protocol string) error {
	for _, k := range p.sys.keys(protocol + "/conf/*/forwarding") {
		if err := p.sys.forget(k); err != nil {
			return err
		}
	}
	return nil
}

// wants6 says whether the tunnel has IPv6 at all.
func (p *Plane) wants6() bool {
	return p.ipv6 && slices.ContainsFunc(p.want.gateway.Addrs, func(a netip.Addr) bool { return a.Is6() })
}

// setForwarding switches on what is needed, after the guards stand, and gives back what
// is no longer needed. It returns what somebody else had changed.
func (p *Plane) setForwarding() ([]dataplane.Drift, error) {
	var drift []dataplane.Drift
	keep := map[string]bool{all4: true, all6: true}
	change := func(key, value string) error {
		keep[key] = true
		_, known := p.sys.was(key)
		changed, err := p.sys.change(key, value)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the interface went away just now; its routes with it
		}
		if changed && known {
			drift = append(drift, dataplane.Drift{What: "sysctl " + dotted(key), Was: "changed"})
		}
		return err
	}
	if len(p.guards.v4) > 0 {
		if v, err := p.sys.get(all4); err != nil {
			return drift, fmt.Errorf("reading sysctl %s: %w", dotted(all4), err)
		} else if v == "0" {
			if err := p.sys.noteAs(all4, "0", "0"); err != nil { // to tell when the owner switches it on
				return drift, err
			}
		}
	}
	for _, i := range p.outs.v4 {
		if err := change(conf4(i, "forwarding"), "1"); err != nil {
			return drift, err
		}
		if p.filtersReverse(i) {
			if err := change(conf4(i, "src_valid_mark"), "1"); err != nil {
				return drift, err
			}
		}
		keep[conf4(i, "src_valid_mark")] = true
	}
	if p.wants6() {
		host, err := p.sys.get(all6)
		if err != nil {
			return drift, fmt.Errorf("reading sysctl %s: %w", dotted(all6), err)
		}
		_, ours := p.sys.was(all6)
		switch {
		case p.forceForwarding():
			for _, i := range p.outs.v6 {
				key := conf6(i, "force_forwarding")
				if _, known := p.sys.was(key); host == "0" || known {
					if err := change(key, "1"); err != nil {
						return drift, err
					}
				}
			}
		case host == "0":
			if err := p.forwardAll6(); err != nil {
				return drift, err
			}
			if ours {
				drift = append(drift, dataplane.Drift{What: "sysctl " + dotted(all6), Was: "changed"})
			}
		}
	}
	for _, k := range p.sys.keys("*") {
		if keep[k] || strings.HasPrefix(k, "net/ipv6") && !strings.HasSuffix(k, "/force_forwarding") {
			continue
		}
		if err := p.sys.giveBack(k); err != nil {
			return drift, err
		}
		p.wake() // its guard may go now
	}
	return drift, nil
}

// filtersReverse says whether rp_filter looks at what comes in by the interface (the
// kernel takes the larger of the interface's value and of that for all). It is taken to
// do so where that cannot be read.
func (p *Plane) filtersReverse(iface string) bool {
	for _, i := range []string{iface, "all"} {
		if v, err := p.sys.get(conf4(i, "rp_filter")); v != "0" && !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// forwardAll6 switches IPv6 forwarding on for the whole host and leaves every interface
// the host that it was: accepting router advertisements, keeping its default route. The
// kernel forwards by the one switch; the interfaces' own only decide how they behave.
func (p *Plane) forwardAll6() error {
	ifaces, err := p.sys.interfaces6()
	if err != nil {
		return err
	}
	if err := p.sys.note(all6, "1"); err != nil {
		return err
	}
	type former struct{ forwarding, acceptRA string }
	was := map[string]former{}
	for _, i := range ifaces {
		f, err := p.sys.get(conf6(i, "forwarding"))
		if err != nil {
			continue // gone meanwhile
		}
		ra, err := p.sys.get(conf6(i, "accept_ra"))
		if err != nil {
			continue
		}
		was[i] = former{f, ra}
		if f != "0" { // the switch back at the end would reset it
			if err := p.sys.noteAs(conf6(i, "forwarding"), f, f); err != nil {
				return err
			}
		}
		// With 1, the routes learnt by advertisements would be dropped at the switch.
		if ra == "1" && f == "0" {
			if _, err := p.sys.put(conf6(i, "accept_ra"), "2"); err != nil {
				return err
			}
		}
	}
	if _, err := p.sys.put(all6, "1"); err != nil {
		return err
	}
	var errs []error
	for i, w := range was {
		if _, err := p.sys.put(conf6(i, "forwarding"), w.forwarding); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		if _, err := p.sys.put(conf6(i, "accept_ra"), w.acceptRA); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// keyIface is the interface in a sysctl's key: net/ipv4/conf/IFACE/name.
func keyIface(key string) string { return path.Base(path.Dir(key)) }

// forceForwarding says whether the kernel can forward IPv6 for single interfaces (6.17).
func (p *Plane) forceForwarding() bool {
	_, err := os.Stat("/proc/sys/net/ipv6/conf/all/force_forwarding")
	return err == nil && !p.o.GlobalForwarding6
}
