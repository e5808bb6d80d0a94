package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// FIB_RULE_INVERT of linux/fib_rules.h.
const fibRuleInvert = 0x2

// families are those that the kernel has.
func families() []int {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return []int{unix.AF_INET}
	}
	return []int{unix.AF_INET, unix.AF_INET6}
}

// setRules makes the rules of our protocol number those of want.
func setRules(want []rule) error {
	_, _, err := repairRules(want)
	return err
}

// repairRules does what setRules does and says what it added and deleted. It adds
// before it deletes: what is prohibited stays so.
func repairRules(want []rule) (added, deleted []rule, err error) {
	var have []rule
	possible := map[int]bool{}
	for _, f := range families() {
		l, err := listRules(f)
		if err != nil {
			return nil, nil, err
		}
		have = append(have, l...)
		possible[f] = true
	}
	add, del := diffRules(have, want)
	for _, r := range add {
		if !possible[r.family] {
			continue
		}
		if err := netlink.RuleAdd(r.netlink()); err != nil && !errors.Is(err, unix.EEXIST) {
			return added, deleted, fmt.Errorf("adding %v: %w", r, err)
		}
		added = append(added, r)
	}
	for _, r := range del {
		if err := netlink.RuleDel(r.netlink()); err != nil && !errors.Is(err, unix.ENOENT) {
			return added, deleted, fmt.Errorf("deleting %v: %w", r, err)
		}
		deleted = append(deleted, r)
	}
	return added, deleted, nil
}

func (r rule) netlink() *netlink.Rule {
	n := netlink.NewRule()
	n.Family, n.Priority, n.Invert, n.IifName = r.family, r.prio, r.not, r.iif
	n.Type, n.Protocol = r.action, ruleProto
	if r.action == unix.RTN_UNICAST {
		n.Table = unix.RT_TABLE_MAIN
	}
	if r.to.IsValid() {
		n.Dst = ipNet(r.to)
	}
	if r.marked {
		mask := Mark
		n.Mark, n.Mask = Mark, &mask
	}
	return n
}

// listRules reads the rules of our protocol number. The netlink package's own list
// drops the action, which is what matters here.
func listRules(family int) ([]rule, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETRULE, unix.NLM_F_DUMP|unix.NLM_F_REQUEST)
	req.AddData(nl.NewIfInfomsg(family))
	var msgs [][]byte
	var err error
	for range 5 { // a dump that was interrupted by a change is read again
		msgs, err = req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWRULE)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listing the routing rules: %w", err)
	}
	var out []rule
	for _, m := range msgs {
		r, ours, err := parseRule(m)
		if err != nil {
			return nil, fmt.Errorf("reading a routing rule: %w", err)
		}
		if ours {
			out = append(out, r)
		}
	}
	return out, nil
}

func parseRule(m []byte) (r rule, ours bool, err error) {
	msg := nl.DeserializeRtMsg(m)
	attrs, err := nl.ParseRouteAttr(m[msg.Len():])
	if err != nil {
		return rule{}, false, err
	}
	r = rule{family: int(msg.Family), action: msg.Type, not: msg.Flags&fibRuleInvert != 0}
	var mark, mask, table uint32
	for _, a := range attrs {
		v := a.Value
		switch a.Attr.Type {
		case nl.FRA_PROTOCOL:
			ours = len(v) > 0 && v[0] == ruleProto
		case nl.FRA_PRIORITY:
			r.prio = int(binary.NativeEndian.Uint32(v))
		case nl.FRA_IIFNAME:
			r.iif = unix.ByteSliceToString(v)
		case nl.FRA_DST:
			if ip, ok := netip.AddrFromSlice(v); ok {
				r.to = netip.PrefixFrom(ip, int(msg.Dst_len))
			}
		case nl.FRA_FWMARK:
			mark = binary.NativeEndian.Uint32(v)
		case nl.FRA_FWMASK:
			mask = binary.NativeEndian.Uint32(v)
		case nl.FRA_TABLE:
			table = binary.NativeEndian.Uint32(v)
		case nl.FRA_SRC, nl.FRA_OIFNAME, nl.FRA_IP_PROTO, nl.FRA_SPORT_RANGE, nl.FRA_DPORT_RANGE, nl.FRA_UID_RANGE, nl.FRA_GOTO:
			r.other += fmt.Sprintf(" attribute %d", a.Attr.Type)
		}
	}
	switch {
	case mark == Mark && mask == Mark:
		r.marked = true
	case mark != 0 || mask != 0:
		r.other += fmt.Sprintf(" fwmark %#x/%#x", mark, mask)
	}
	if r.action == unix.RTN_UNICAST && table != unix.RT_TABLE_MAIN {
		r.other += fmt.Sprintf(" lookup %d", table)
	}
	return r, ours, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
