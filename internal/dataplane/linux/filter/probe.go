package filter

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// features are what this kernel's nf_tables can do.
type features struct {
	owner   bool // tables that belong to a socket and outlive it (owner, persist): Linux 6.9
	destroy bool // deletion that does not mind absence: Linux 6.3
	labels  bool // flows bear labels: CONFIG_NF_CONNTRACK_LABELS
}

func (k features) flags() uint32 {
	if k.owner {
		return tableFlagOwner | tableFlagPersist
	}
	return 0
}

func (k features) deleteVerb() uint16 {
	if k.destroy {
		return msgDestroySetElem
	}
	return unix.NFT_MSG_DELSETELEM
}

// probe tries features in a transaction that cannot succeed, so nothing changes.
func probe(ctx context.Context, s *socket) (features, error) {
	b := &batch{table: "vpnd_probe"}
	b.addTable(tableFlagOwner | tableFlagPersist)
	plain := &batch{table: "vpnd_probe_2"}
	x := set{name: "x", key: []field{{typ: typeMark, len: 4}}}
	plain.addTable(0)
	plain.addSet(x, 1)
	plain.delElements(x, []string{"\x00\x00\x00\x00"}, msgDestroySetElem)
	plain.addChain("y", nil)
	probeLabels(plain, "y")
	plain.delChain("no_such_chain")
	b.ops = append(b.ops, plain.ops...)
	errs, err := s.send(ctx, b)
	if err != nil {
		return features{}, err
	}
	k := features{owner: true, destroy: true, labels: true}
	for _, e := range errs {
		switch e.index {
		case 0:
			k.owner = false
		case 3:
			k.destroy = false
		case 5:
			k.labels = false
		case 6: // the one that must fail
		default:
			if errors.Is(e, unix.EPERM) {
				return features{}, fmt.Errorf("nf_tables is not permitted (CAP_NET_ADMIN is needed): %w", e)
			}
			return features{}, fmt.Errorf("this kernel's nf_tables is not usable: %w", e)
		}
	}
	return k, nil
}

// takeOver begins a transaction with the removal of the table that is there, be it ours
// or one that a former vpnd left behind.
func (f *Filter) takeOver(b *batch) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	for _, t := range tables {
		if t.Name != tableName {
			continue
		}
		if t.Flags&tableFlagOwner != 0 && !f.built {
			b.addTable(t.Flags &^ 1) // adopts it, if its owner is dead
		}
		b.delTable()
	}
	return nil
}

// Detail says in one line how the filter works on this kernel.
func (f *Filter) Detail() string {
	parts := []string{"nftables"}
	if f.kernel.owner {
		parts = append(parts, "table owned by vpnd")
	} else {
		parts = append(parts, "table watched (no owned tables before Linux 6.9)")
	}
	if !f.kernel.destroy {
		parts = append(parts, "single deletions (no destroy before Linux 6.3)")
	}
	if !f.kernel.labels {
		parts = append(parts, "every packet judged the long way (no CONFIG_NF_CONNTRACK_LABELS)")
	}
	return strings.Join(parts, ", ")
}
