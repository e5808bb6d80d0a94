package filter

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane/linux/nft"
)

// readBack reads the elements of all sets from the kernel. An element's until is when
// the kernel will remove it.
func readBack(l layout, suffix string) (contents, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	c := contents{}
	for _, s := range l.sets() {
		now := time.Now() // before, so that no element seems to last longer than it does
		elems, err := conn.GetSetElements(&nftables.Set{Table: table, Name: s.Name + suffix})
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", s.Name, err)
		}
		for _, e := range elems {
			var v nft.Value
			key := string(e.Key)
			if s.Interval {
				if e.IntervalEnd {
					key += nft.IntervalEnd
				} else {
					key += nft.IntervalStart
				}
			}
			switch {
			case s.GoTo != "":
				if v.Data, err = classOf(e.Val); err != nil {
					return nil, fmt.Errorf("read set %s: %w", s.Name, err)
				}
			case s.Wide != 0 && len(e.Val) == int(s.Wide):
				v = nft.WideValue(e.Val)
			case len(e.Val) == 4:
				v.Data = binary.NativeEndian.Uint32(e.Val)
			}
			if e.Expires > 0 {
				v.Until = now.Add(e.Expires)
			}
			c.put(s.Name, key, v)
		}
	}
	return c, nil
}

// classOf reads the verdict "goto class_n".
func classOf(b []byte) (uint32, error) {
	attrs, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return 0, err
	}
	for _, a := range attrs {
		if a.Type&^unix.NLA_F_NESTED == unix.NFTA_VERDICT_CHAIN {
			name := strings.TrimSuffix(strings.TrimRight(string(a.Data), "\x00"), ".b")
			n, err := strconv.ParseUint(strings.TrimPrefix(name, classPrefix), 10, 32)
			return uint32(n), err
		}
	}
	return 0, fmt.Errorf("a verdict without a chain: %x", b)
}

// verify says whether the table is as it should be: every element with its value, none
// that ends later than it should, and each chain with its number of rules. A hash that
// grows while it is listed hides elements for a moment, so one difference is no proof.
func (f *Filter) verify() (difference string, err error) {
	for try := range 4 {
		if try > 0 {
			time.Sleep(200 * time.Millisecond)
		}
		f.mu.Lock()
		if f.closed || !f.built {
			f.mu.Unlock()
			return "", nil
		}
		difference, err = f.verifyLocked(f.now())
		f.mu.Unlock()
		if difference == "" || err != nil {
			break
		}
	}
	return difference, err
}

func (f *Filter) verifyLocked(now time.Time) (difference string, err error) {
	if err := f.sweepLocked(context.Background()); err != nil {
		return "", err
	}
	have, err := readBack(f.layout, f.suffix)
	if err != nil {
		return "", err
	}
	want := f.snapshot().all(f.layout, now)
	for _, s := range f.layout.sets() {
		for k, v := range want[s.Name] {
			h, ok := have[s.Name][k]
			soon := !v.Until.IsZero() && v.Until.Before(now.Add(time.Second))
			if !ok && !soon || ok && (h.Data != v.Data || h.Wide != v.Wide || h.Until.IsZero() != v.Until.IsZero() || h.Until.After(v.Until.Add(time.Second))) {
				return fmt.Sprintf("set %s: element %x is %v, want %v", s.Name, k, h, v), nil
			}
		}
		for k, h := range have[s.Name] {
			if _, ok := want[s.Name][k]; !ok && (h.Until.IsZero() || h.Until.After(now.Add(time.Second))) {
				return fmt.Sprintf("set %s: element %x (%v) should not be there", s.Name, k, h), nil
			}
		}
	}
	return f.verifyRulesLocked()
}

func (f *Filter) verifyRulesLocked() (difference string, err error) {
	conn, err := nftables.New()
	if err != nil {
		return "", fmt.Errorf("open nf_tables: %w", err)
	}
	want := make(map[string]int)
	chains, rules := f.layout.build(f.suffix, f.classes)
	for _, c := range chains {
		want[c.name] = 0
	}
	for _, r := range rules {
		want[r.Chain]++
	}
	list, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return "", fmt.Errorf("list chains: %w", err)
	}
	have, err := countRules()
	if err != nil {
		return "", err
	}
	for _, c := range list {
		if c.Table.Name != tableName {
			continue
		}
		if n, ok := want[c.Name]; !ok || have[c.Name] != n {
			return fmt.Sprintf("chain %s has %d rules, want %d", c.Name, have[c.Name], n), nil
		}
		delete(want, c.Name)
	}
	for name := range want {
		return "chain " + name + " is missing", nil
	}
	return "", nil
}

// countRules counts the rules of each chain of the table. (google/nftables v0.3.0 cannot
// read rules that look at a flow's original direction.)
func countRules() (map[string]int, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	defer func() { _ = conn.Close() }()
	b := &nft.Batch{Table: tableName}
	b.Add("list rules", unix.NFT_MSG_GETRULE, 0, []netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: nft.CString(tableName)}})
	msgs, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(b.Ops[0].Header), Flags: netlink.Request | netlink.Dump},
		Data:   b.Ops[0].Body,
	})
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	n := make(map[string]int)
	for _, m := range msgs {
		attrs, err := netlink.UnmarshalAttributes(m.Data[4:])
		if err != nil {
			return nil, fmt.Errorf("list rules: %w", err)
		}
		for _, a := range attrs {
			if a.Type == unix.NFTA_RULE_CHAIN {
				n[strings.TrimRight(string(a.Data), "\x00")]++
			}
		}
	}
	return n, nil
}
