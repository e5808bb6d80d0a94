package acltest

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"vpnd/acl/rules"
)

// Judge says whether a packet may pass at now by walking over the grants as they are
// written. It shares no code with package rules.
func (w *World) Judge(p rules.Packet, now time.Time) bool {
	src, dst := w.deviceAt(p.Src), w.deviceAt(p.Dst)
	for _, g := range w.Grants {
		if w.grants(g, p, src, dst) && w.holds(g, p, src, dst, now) {
			return true
		}
	}
	return false
}

// Granted says whether some grant covers a packet, at a time and with a code that suit it.
func (w *World) Granted(p rules.Packet) bool {
	src, dst := w.deviceAt(p.Src), w.deviceAt(p.Dst)
	return slices.ContainsFunc(w.Grants, func(g Grant) bool {
		return w.grants(g, p, src, dst) && (g.MFA == "off" || src != nil || dst != nil)
	})
}

func (w *World) deviceAt(a netip.Addr) *rules.Subject {
	for i := range w.Subjects {
		if slices.Contains(w.Subjects[i].Addrs, a) {
			return &w.Subjects[i]
		}
	}
	return nil
}

// nobody tells whether an address lies in the tunnel and belongs neither to a device nor
// to the gateway.
func (w *World) nobody(a netip.Addr, device *rules.Subject) bool {
	if device != nil || slices.Contains(w.Options.Gateway, a) {
		return false
	}
	return slices.ContainsFunc(w.Options.Network, func(n netip.Prefix) bool { return n.Contains(a) })
}

func (w *World) grants(g Grant, p rules.Packet, src, dst *rules.Subject) bool {
	if name := w.resourceAt(p.Dst); name != "" {
		return w.grantsResource(g, name, p, src)
	}
	if w.nobody(p.Src, src) || w.nobody(p.Dst, dst) {
		return false
	}
	if !w.from(g, p.Src, src) {
		return false
	}
	for i, t := range g.Dst {
		if !w.to(t, p, src, dst) {
			continue
		}
		if g.ACL {
			if covers(g.Proto, g.IP[i], p) {
				return true
			}
			continue
		}
		if coversAny(g.IP, p) {
			return true
		}
	}
	return false
}

// coversAny tells whether one of a grant's protocols and ports is the packet's.
func coversAny(list []string, p rules.Packet) bool {
	for _, ip := range list {
		proto, ports, both := strings.Cut(ip, ":")
		switch {
		case !both && (ip[0] >= '0' && ip[0] <= '9' || ip == "*"):
			proto, ports = "", ip
		case !both:
			ports = "*"
		case proto == "*":
			proto = ""
		}
		if covers(proto, ports, p) {
			return true
		}
	}
	return false
}

// from tells whether a grant has an address as a source.
func (w *World) from(g Grant, a netip.Addr, device *rules.Subject) bool {
	return slices.ContainsFunc(g.Src, func(t string) bool {
		if t == "*" {
			return device != nil
		}
		return w.matches(t, a, device)
	})
}

// to tells whether a selector of a grant is a packet's destination.
func (w *World) to(t string, p rules.Packet, src, dst *rules.Subject) bool {
	switch t {
	case "*":
		return true
	case "autogroup:self":
		return src != nil && dst != nil && p.Src != p.Dst && len(src.Tags)+len(dst.Tags) == 0 && sameUser(src.User, dst.User)
	default:
		return w.matches(t, p.Dst, dst)
	}
}

// covers tells whether a protocol and ports as written are the packet's.
func covers(proto, ports string, p rules.Packet) bool {
	switch proto {
	case "":
		if p.Proto != 1 && p.Proto != 6 && p.Proto != 17 && p.Proto != 58 {
			return false
		}
	case "icmp":
		if p.Proto != 1 && p.Proto != 58 {
			return false
		}
	default:
		n, ok := map[string]int{"tcp": 6, "udp": 17, "sctp": 132, "gre": 47}[proto]
		if !ok {
			n, _ = strconv.Atoi(proto)
		}
		if int(p.Proto) != n {
			return false
		}
	}
	if ports == "*" || p.Proto != 6 && p.Proto != 17 && p.Proto != 132 {
		return true
	}
	for part := range strings.SplitSeq(ports, ",") {
		a, b, isRange := strings.Cut(part, "-")
		if !isRange {
			b = a
		}
		first, _ := strconv.Atoi(a)
		last, _ := strconv.Atoi(b)
		if first <= int(p.DstPort) && int(p.DstPort) <= last {
			return true
		}
	}
	return false
}

// matches tells whether an address, or the device that has it, is what a selector names.
func (w *World) matches(t string, a netip.Addr, device *rules.Subject) bool {
	switch {
	case t == "autogroup:member":
		return device != nil && len(device.Tags) == 0
	case t == "autogroup:tagged":
		return device != nil && len(device.Tags) > 0
	case strings.HasPrefix(t, "tag:"):
		return device != nil && slices.Contains(device.Tags, t)
	case strings.HasPrefix(t, "group:"):
		return device != nil && len(device.Tags) == 0 && w.member(device.User, t)
	case strings.HasPrefix(t, "ipset:"):
		return w.inSet(t, a)
	case strings.HasPrefix(t, "host:"):
		return w.matches(t[len("host:"):], a, device)
	case t == "app":
		return slices.Contains(w.Options.Gateway, a)
	case w.Resources[t].To != "":
		return w.resourceAt(a) == t
	case w.Hosts[t] != "":
		return contains(w.Hosts[t], a)
	case strings.ContainsAny(t, "./:"):
		return contains(t, a)
	default:
		return device != nil && len(device.Tags) == 0 && sameUser(device.User, strings.TrimSuffix(t, "@"))
	}
}

func contains(prefix string, a netip.Addr) bool {
	if x, err := netip.ParseAddr(prefix); err == nil {
		return x == a
	}
	return netip.MustParsePrefix(prefix).Contains(a)
}

func (w *World) member(user, group string) bool {
	return slices.ContainsFunc(w.Groups[group], func(m string) bool {
		if strings.HasPrefix(m, "group:") {
			return w.member(user, m)
		}
		return sameUser(m, user)
	})
}

func (w *World) inSet(set string, a netip.Addr) bool {
	in := false
	for _, op := range w.Sets[set] {
		remove := strings.HasPrefix(op, "remove ")
		what := strings.TrimPrefix(strings.TrimPrefix(op, "remove "), "add ")
		if w.matches(what, a, nil) {
			in = !remove
		}
	}
	return in
}

// holds tells whether a grant's conditions hold.
func (w *World) holds(g Grant, p rules.Packet, src, dst *rules.Subject, now time.Time) bool {
	if !g.Expires.IsZero() && !now.Before(g.Expires) {
		return false
	}
	if len(g.Hours) > 0 && !slices.ContainsFunc(g.Hours, func(h Hours) bool { return h.open(now) }) {
		return false
	}
	if g.MFA == "off" {
		return true
	}
	session := p.SrcSession
	switch {
	case src == nil && dst == nil:
		return false
	case src == nil:
		session = p.DstSession
	case dst != nil && !p.DstSession.Until.After(now):
		return false
	}
	if !session.Until.After(now) {
		return false
	}
	if g.MFA == "" {
		return true
	}
	mfa, _ := time.ParseDuration(g.MFA)
	return mfa >= w.Options.Session || session.Code.Add(mfa).After(now)
}

// open tells whether the wall clock of the window's zone shows a time inside it.
func (h Hours) open(now time.Time) bool {
	zone, err := time.LoadLocation(h.Zone)
	if err != nil {
		return false
	}
	t := now.In(zone)
	day, minute := (int(t.Weekday())+6)%7, t.Hour()*60+t.Minute()
	if h.To > h.From {
		return h.Days[day] && minute >= h.From && minute < h.To
	}
	return h.Days[day] && minute >= h.From || h.Days[(day+6)%7] && minute < h.To
}

// sameUser compares users' names without regard to the case of ASCII letters.
func sameUser(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}

// Sends tells whether a selector of a grant or a test has an address as a source.
func (w *World) Sends(selector string, a netip.Addr) bool {
	device := w.deviceAt(a)
	return !w.nobody(a, device) && w.from(Grant{Src: []string{selector}}, a, device)
}

// Receives tells whether a selector of a grant or a test has a packet's destination.
func (w *World) Receives(selector string, p rules.Packet) bool {
	src, dst := w.deviceAt(p.Src), w.deviceAt(p.Dst)
	if name := w.resourceAt(p.Dst); name != "" {
		return selector == name || selector == "*"
	}
	return !w.nobody(p.Dst, dst) && w.to(selector, p, src, dst)
}
