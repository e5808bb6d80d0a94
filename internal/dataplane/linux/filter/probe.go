package filter

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane/linux/nft"
)

// features are what this kernel's nf_tables can do.
type features struct {
	owner   bool // tables that belong to a socket and outlive it (owner, persist): Linux 6.9
	destroy bool // deletion that does not mind absence: Linux 6.3
	labels  bool // flows bear labels: CONFIG_NF_CONNTRACK_LABELS
}

func (k features) flags() uint32 {
	if k.owner {
		return nft.TableFlagOwner | nft.TableFlagPersist
	}
	return 0
}

func (k features) deleteVerb() uint16 {
	if k.destroy {
		return nft.MsgDestroySetElem
	}
	return unix.NFT_MSG_DELSETELEM
}

// probe tries features in a transaction that cannot succeed, so nothing changes.
func probe(ctx context.Context, s *nft.Socket) (features, error) {
	b := &nft.Batch{Table: "vpnd_probe"}
	b.AddTable(nft.TableFlagOwner | nft.TableFlagPersist)
	plain := &nft.Batch{Table: "vpnd_probe_2"}
	x := nft.Set{Name: "x", Key: []nft.Field{{Typ: nft.TypeMark, Len: 4}}}
	plain.AddTable(0)
	plain.AddSet(x, 1)
	plain.DelElements(x, []string{"\x00\x00\x00\x00"}, nft.MsgDestroySetElem)
	plain.AddChain("y", nil)
	probeLabels(plain, "y")
	plain.DelChain("no_such_chain")
	b.Ops = append(b.Ops, plain.Ops...)
	errs, err := s.Send(ctx, b)
	if err != nil {
		return features{}, err
	}
	k := features{owner: true, destroy: true, labels: true}
	for _, e := range errs {
		switch e.Index {
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
func (f *Filter) takeOver(b *nft.Batch) error {
	there, err := f.adopt(b)
	if there {
		b.DelTable()
	}
	return err
}

// adopt begins a transaction on the table that is there, if there is one: a table whose
// owner is dead has to be taken over first.
func (f *Filter) adopt(b *nft.Batch) (there bool, err error) {
	conn, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("open nf_tables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	for _, t := range tables {
		if t.Name != tableName {
			continue
		}
		there = true
		if t.Flags&nft.TableFlagOwner != 0 && !f.built {
			b.AddTable(t.Flags &^ 1)
		}
	}
	return there, nil
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
