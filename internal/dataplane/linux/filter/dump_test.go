package filter

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// dump is the whole table as it was read back from the kernel at one moment, so that many
// packets can be judged by it, also at later moments: what has an end is gone by then.
type dump struct {
	chains map[string][][]step
	hooks  map[string]uint32
	sets   map[string]*dumpedSet
	at     time.Duration // since it was read
}

type dumpedSet struct {
	kernelSet
	elems  map[string]dumpedElement
	ranges []dumpedElement // of an interval set, by address; an end before a beginning
}

type dumpedElement struct {
	mapped
	key  []byte
	end  bool          // of an interval
	left time.Duration // that it still lasted when it was read; 0: for ever
}

// readDump reads the table.
func readDump(ctx context.Context) (*dump, error) {
	k, err := openKernel(ctx, tableName)
	if err != nil {
		return nil, err
	}
	defer k.close()
	d := &dump{chains: make(map[string][][]step), hooks: make(map[string]uint32), sets: make(map[string]*dumpedSet)}
	chains, err := k.ask("list chains", unix.NFT_MSG_GETCHAIN, netlink.Dump)
	if err != nil {
		return nil, err
	}
	for _, c := range chains {
		if c.str(unix.NFTA_CHAIN_TABLE) != tableName {
			continue
		}
		d.chains[c.str(unix.NFTA_CHAIN_NAME)] = nil
		if c[unix.NFTA_CHAIN_HOOK] != nil {
			h, err := readAttributes(c[unix.NFTA_CHAIN_HOOK])
			if err != nil {
				return nil, err
			}
			d.hooks[c.str(unix.NFTA_CHAIN_NAME)] = h.u32(unix.NFTA_HOOK_HOOKNUM)
		}
	}
	rules, err := k.ask("list rules", unix.NFT_MSG_GETRULE, netlink.Dump, netlink.Attribute{Type: unix.NFTA_RULE_TABLE, Data: cstr(tableName)})
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		steps, err := decodeRule(r[unix.NFTA_RULE_EXPRESSIONS])
		if err != nil {
			return nil, fmt.Errorf("a rule of chain %s: %w", r.str(unix.NFTA_RULE_CHAIN), err)
		}
		name := r.str(unix.NFTA_RULE_CHAIN)
		d.chains[name] = append(d.chains[name], steps)
	}
	sets, err := k.ask("list sets", unix.NFT_MSG_GETSET, netlink.Dump, netlink.Attribute{Type: unix.NFTA_SET_TABLE, Data: cstr(tableName)})
	if err != nil {
		return nil, err
	}
	for _, s := range sets {
		name := s.str(unix.NFTA_SET_NAME)
		if d.sets[name], err = dumpSet(k, name); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func dumpSet(k *kernel, name string) (*dumpedSet, error) {
	kind, err := k.set(name)
	if err != nil {
		return nil, err
	}
	s := &dumpedSet{kernelSet: kind, elems: make(map[string]dumpedElement)}
	list, err := k.ask("list set "+name, unix.NFT_MSG_GETSETELEM, netlink.Dump,
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: cstr(tableName)},
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: cstr(name)})
	if err != nil {
		return nil, err
	}
	elems, err := elementsOf(list)
	if err != nil {
		return nil, err
	}
	for _, e := range elems {
		key, err := dataOf(e, unix.NFTA_SET_ELEM_KEY)
		if err != nil {
			return nil, err
		}
		x := dumpedElement{key: key.data, end: e.u32(unix.NFTA_SET_ELEM_FLAGS)&unix.NFT_SET_ELEM_INTERVAL_END != 0}
		if e[unix.NFTA_SET_ELEM_DATA] != nil {
			if x.mapped, err = dataOf(e, unix.NFTA_SET_ELEM_DATA); err != nil {
				return nil, err
			}
		}
		if left := e[unix.NFTA_SET_ELEM_EXPIRATION]; len(left) == 8 {
			x.left = time.Duration(binary.BigEndian.Uint64(left)) * time.Millisecond
		}
		s.elems[string(x.key)] = x
		if s.interval {
			s.ranges = append(s.ranges, x)
		}
	}
	slices.SortFunc(s.ranges, func(a, b dumpedElement) int {
		if c := bytes.Compare(a.key, b.key); c != 0 || a.end == b.end {
			return c
		}
		if a.end {
			return -1
		}
		return 1
	})
	return s, nil
}

func (d *dump) hooked(chain string, hook uint32) (bool, error) {
	at, ok := d.hooks[chain]
	return ok && at == hook, nil
}

func (d *dump) rules(chain string) ([][]step, error) {
	r, ok := d.chains[chain]
	if !ok {
		return nil, fmt.Errorf("there is no chain %s", chain)
	}
	return r, nil
}

func (d *dump) find(set string, regs []byte) (mapped, bool, error) {
	s := d.sets[set]
	if s == nil {
		return mapped{}, false, fmt.Errorf("there is no set %s", set)
	}
	key := regs[:s.keyLen]
	if s.interval {
		var last *dumpedElement
		for i := range s.ranges {
			if bytes.Compare(s.ranges[i].key, key) > 0 {
				break
			}
			last = &s.ranges[i]
		}
		if last == nil || last.end {
			return mapped{}, false, nil
		}
		return last.mapped, true, nil
	}
	e, ok := s.elems[string(key)]
	if !ok || e.left != 0 && e.left <= d.at {
		return mapped{}, false, nil
	}
	return e.mapped, true, nil
}
