package peers

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/hashicorp/go-memdb"
)

// The tables. Every index is unique and its keys are compact binary; each entry costs
// about 0.4 KB of heap in go-memdb, so there are no more of them than look-ups need.
const (
	tableUsers       = "users"
	tableDevices     = "devices"
	tableInvitations = "invitations"
	tableSessions    = "sessions"
	tablePolicies    = "policies"
	tableAudit       = "audit"
	tableRetired     = "retired"
	tableReleased    = "released"
	tableRequests    = "requests"
	tableVault       = "vault"
	tableVaultLocks  = "vault_locks"
	tableSelfTests   = "self_tests"
	tablePlaces      = "places"
)

const (
	byID    = "id" // go-memdb's name of the primary index
	byName  = "name"
	byKey   = "key"
	byAddr  = "addr"
	byHash  = "hash"
	byUser  = "user"
	byEnd   = "end"
	byOrder = "order"
	byGone  = "gone"
)

// retired is a tombstone: a public key that was a device's and must not come back.
type retired struct {
	Key    Key   `cbor:"1,keyasint"`
	Device ID    `cbor:"2,keyasint"`
	User   ID    `cbor:"3,keyasint"`
	At     stamp `cbor:"4,keyasint"`
}

// released is an address, as its place in the network, that was a device's.
type released struct {
	Order uint64 `cbor:"1,keyasint"` // of release, from 1
	Host  uint32 `cbor:"2,keyasint"`
}

func schema() *memdb.DBSchema {
	tables := map[string]*memdb.TableSchema{}
	table := func(name string, indexes map[string]memdb.Indexer) {
		t := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{}}
		for n, x := range indexes {
			t.Indexes[n] = &memdb.IndexSchema{Name: n, Unique: true, Indexer: x}
		}
		tables[name] = t
	}
	table(tableUsers, map[string]memdb.Indexer{
		byID:   index[User](func(u *User) []byte { return u.ID[:] }),
		byName: index[User](func(u *User) []byte { return []byte(fold(u.Name)) }),
	})
	table(tableDevices, map[string]memdb.Indexer{
		byID:   index[Device](func(d *Device) []byte { return d.ID[:] }),
		byName: index[Device](func(d *Device) []byte { return deviceNameKey(d.User, d.Name) }),
		byKey:  index[Device](func(d *Device) []byte { return d.PublicKey[:] }),
		// The second address follows from the first: see addrs.
		byAddr: index[Device](func(d *Device) []byte { return addrKey(d.Addrs[0]) }),
	})
	table(tableInvitations, map[string]memdb.Indexer{
		byID:   index[Invitation](func(i *Invitation) []byte { return i.ID[:] }),
		byHash: index[Invitation](func(i *Invitation) []byte { return i.Hash[:] }),
		byUser: index[Invitation](func(i *Invitation) []byte { return append(i.User[:len(i.User):len(i.User)], i.ID[:]...) }),
		byEnd:  index[Invitation](func(i *Invitation) []byte { return append(orderKey(uint64(stampOf(i.Expires))), i.ID[:]...) }),
	})
	table(tableSessions, map[string]memdb.Indexer{
		byID:  index[Session](func(s *Session) []byte { return s.Device[:] }),
		byEnd: index[Session](func(s *Session) []byte { return append(orderKey(uint64(stampOf(s.Until))), s.Device[:]...) }),
	})
	table(tablePolicies, map[string]memdb.Indexer{
		byID: index[PolicyVersion](func(p *PolicyVersion) []byte { return orderKey(p.Version) }),
	})
	table(tableAudit, map[string]memdb.Indexer{
		byID: index[Entry](func(e *Entry) []byte { return orderKey(e.Index) }),
	})
	table(tableRetired, map[string]memdb.Indexer{
		byID: index[retired](func(r *retired) []byte { return r.Key[:] }),
	})
	table(tableReleased, map[string]memdb.Indexer{
		byID: index[released](func(r *released) []byte { return orderKey(r.Order) }),
	})
	table(tableRequests, map[string]memdb.Indexer{
		byID:    index[request](func(r *request) []byte { return r.ID[:] }),
		byOrder: index[request](func(r *request) []byte { return orderKey(r.Order) }),
	})
	table(tableVault, map[string]memdb.Indexer{
		byID: index[vaultValue](func(x *vaultValue) []byte { return []byte(x.Name) }),
	})
	table(tableVaultLocks, map[string]memdb.Indexer{
		byID:  index[vaultLock](func(l *vaultLock) []byte { return []byte(l.Name) }),
		byEnd: index[vaultLock](func(l *vaultLock) []byte { return append(orderKey(uint64(l.End)), l.Name...) }),
	})
	table(tableSelfTests, map[string]memdb.Indexer{
		byID:   index[selfTest](func(x *selfTest) []byte { return x.PublicKey[:] }),
		byAddr: index[selfTest](func(x *selfTest) []byte { return orderKey(uint64(x.Host)) }),
		byEnd:  index[selfTest](func(x *selfTest) []byte { return append(orderKey(uint64(x.End)), x.PublicKey[:]...) }),
	})
	table(tablePlaces, map[string]memdb.Indexer{
		byID:   index[place](func(p *place) []byte { return placeKey(p.Place) }),
		byName: index[place](func(p *place) []byte { return []byte(p.Name) }),
		byGone: index[place]((*place).goneKey),
	})
	return &memdb.DBSchema{Tables: tables}
}

func deviceNameKey(user ID, name string) []byte {
	return append(user[:len(user):len(user)], fold(name)...)
}

func addrKey(a netip.Addr) []byte { return a.AsSlice() }

// orderKey sorts as its number does.
func orderKey(n uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 0, 8+16), n)
}

// spread writes a key with four bits to a byte. Order and prefixes stay the same, but a
// node of the radix tree then has at most 16 children instead of 256, and a change copies
// every node on its path: this halves the cost of a command.
func spread(key []byte) []byte {
	s := make([]byte, 0, 2*len(key))
	for _, b := range key {
		s = append(s, b>>4, b&15)
	}
	return s
}

// index makes an object's key in one index. Look-ups pass keys as []byte.
type index[T any] func(*T) []byte

// FromObject implements memdb.SingleIndexer.
func (x index[T]) FromObject(o any) (bool, []byte, error) {
	v, ok := o.(*T)
	if !ok {
		return false, nil, fmt.Errorf("indexing a %T", o)
	}
	return true, spread(x(v)), nil
}

// FromArgs implements memdb.Indexer.
func (x index[T]) FromArgs(args ...any) ([]byte, error) {
	if len(args) == 1 {
		if k, ok := args[0].([]byte); ok {
			return spread(k), nil
		}
	}
	return nil, fmt.Errorf("looking up by %v: one key of bytes is needed", args)
}

// PrefixFromArgs implements memdb.PrefixIndexer.
func (x index[T]) PrefixFromArgs(args ...any) ([]byte, error) { return x.FromArgs(args...) }
