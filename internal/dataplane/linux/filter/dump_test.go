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

	"vpnd/internal/dataplane/linux/nft"
	"vpnd/internal/dataplane/linux/run"
)

// dump is the whole table as it was read back from the kernel at one moment, so that many
// packets can be judged by it, also at later moments: what has an end is gone by then.
type dump struct {
	chains map[string][][]run.Step
	hooks  map[string]uint32
	sets   map[string]*dumpedSet
	at     time.Duration // since it was read
}

type dumpedSet struct {
	run.KernelSet
	elems  map[string]dumpedElement
	ranges []dumpedElement // of an interval set, by address; an end before a beginning
}

type dumpedElement struct {
	run.Mapped
	key  []byte
	end  bool          // of an interval
	left time.Duration // that it still lasted when it was read; 0: for ever
}

// readDump reads the table.
func readDump(ctx context.Context) (*dump, error) {
	k, err := run.Open(ctx, tableName)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	d := &dump{chains: make(map[string][][]run.Step), hooks: make(map[string]uint32), sets: make(map[string]*dumpedSet)}
	chains, err := k.Ask("list chains", unix.NFT_MSG_GETCHAIN, netlink.Dump)
	if err != nil {
		return nil, err
	}
	for _, c := range chains {
		if c.Str(unix.NFTA_CHAIN_TABLE) != tableName {
			continue
		}
		d.chains[c.Str(unix.NFTA_CHAIN_NAME)] = nil
		if c[unix.NFTA_CHAIN_HOOK] != nil {
			h, err := nft.ReadAttributes(c[unix.NFTA_CHAIN_HOOK])
			if err != nil {
				return nil, err
			}
			d.hooks[c.Str(unix.NFTA_CHAIN_NAME)] = h.U32(unix.NFTA_HOOK_HOOKNUM)
		}
	}
	rules, err := k.Ask("list rules", unix.NFT_MSG_GETRULE, netlink.Dump, netlink.Attribute{Type: unix.NFTA_RULE_TABLE, Data: nft.CString(tableName)})
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		steps, err := run.DecodeRule(r[unix.NFTA_RULE_EXPRESSIONS])
		if err != nil {
			return nil, fmt.Errorf("a rule of chain %s: %w", r.Str(unix.NFTA_RULE_CHAIN), err)
		}
		name := r.Str(unix.NFTA_RULE_CHAIN)
		d.chains[name] = append(d.chains[name], steps)
	}
	sets, err := k.Ask("list sets", unix.NFT_MSG_GETSET, netlink.Dump, netlink.Attribute{Type: unix.NFTA_SET_TABLE, Data: nft.CString(tableName)})
	if err != nil {
		return nil, err
	}
	for _, s := range sets {
		name := s.Str(unix.NFTA_SET_NAME)
		if d.sets[name], err = dumpSet(k, name); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func dumpSet(k *run.Kernel, name string) (*dumpedSet, error) {
	kind, err := k.Set(name)
	if err != nil {
		return nil, err
	}
	s := &dumpedSet{KernelSet: kind, elems: make(map[string]dumpedElement)}
	list, err := k.Ask("list set "+name, unix.NFT_MSG_GETSETELEM, netlink.Dump,
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: nft.CString(tableName)},
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: nft.CString(name)})
	if err != nil {
		return nil, err
	}
	elems, err := run.Elements(list)
	if err != nil {
		return nil, err
	}
	for _, e := range elems {
		key, err := run.DataOf(e, unix.NFTA_SET_ELEM_KEY)
		if err != nil {
			return nil, err
		}
		x := dumpedElement{key: key.Data, end: e.U32(unix.NFTA_SET_ELEM_FLAGS)&unix.NFT_SET_ELEM_INTERVAL_END != 0}
		if e[unix.NFTA_SET_ELEM_DATA] != nil {
			if x.Mapped, err = run.DataOf(e, unix.NFTA_SET_ELEM_DATA); err != nil {
				return nil, err
			}
		}
		if left := e[unix.NFTA_SET_ELEM_EXPIRATION]; len(left) == 8 {
			x.left = time.Duration(binary.BigEndian.Uint64(left)) * time.Millisecond
		}
		s.elems[string(x.key)] = x
		if s.Interval {
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

func (d *dump) Hooked(chain string, hook uint32) (bool, error) {
	at, ok := d.hooks[chain]
	return ok && at == hook, nil
}

func (d *dump) Rules(chain string) ([][]run.Step, error) {
	r, ok := d.chains[chain]
	if !ok {
		return nil, fmt.Errorf("there is no chain %s", chain)
	}
	return r, nil
}

func (d *dump) Find(set string, regs []byte) (run.Mapped, bool, error) {
	s := d.sets[set]
	if s == nil {
		return run.Mapped{}, false, fmt.Errorf("there is no set %s", set)
	}
	key := regs[:s.KeyLen]
	if s.Interval {
		var last *dumpedElement
		for i := range s.ranges {
			if bytes.Compare(s.ranges[i].key, key) > 0 {
				break
			}
			last = &s.ranges[i]
		}
		if last == nil || last.end {
			return run.Mapped{}, false, nil
		}
		return last.Mapped, true, nil
	}
	e, ok := s.elems[string(key)]
	if !ok || e.left != 0 && e.left <= d.at {
		return run.Mapped{}, false, nil
	}
	return e.Mapped, true, nil
}
