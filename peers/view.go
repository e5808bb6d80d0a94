package peers

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/go-memdb"
)

// View is the state at one Raft index.
type View struct {
	db      *memdb.MemDB // the live database, for the next Apply
	txn     *memdb.Txn   // reads the tables as they were
	m       meta
	journal *journal
	changed chan struct{}
}

func newView(db *memdb.MemDB, m meta, j *journal) *View {
	return &View{db: db, txn: db.Txn(false), m: m, journal: j, changed: make(chan struct{})}
}

func (v *View) read() *memdb.Txn { return v.txn }

func (v *View) fail(err error) {
	if err != nil {
		panic(fmt.Sprintf("peers: reading a table: %v", err)) // only a mistake in schema.go gets here
	}
}

// Index is the Raft index of the last command applied.
func (v *View) Index() uint64 { return v.m.Index }

// Time is the latest time that a command carried.
func (v *View) Time() time.Time { return v.m.Time.time() }

// Settings returns the cluster's settings; ok is false before Init.
func (v *View) Settings() (s Settings, ok bool) {
	if v.m.Settings == nil {
		return Settings{}, false
	}
	return *v.m.Settings, true
}

// Changed is closed when the next command after this view is applied, also one that
// was refused and moved nothing but Index.
func (v *View) Changed() <-chan struct{} { return v.changed }

// Look-ups return shared, read-only values, or nil.

// User returns the user with this id.
func (v *View) User(id ID) *User { return get[User](v, tableUsers, byID, id[:]) }

// UserByName returns the user with this name, without regard to case.
func (v *View) UserByName(name string) *User { return userByName(v, name) }

// Users yields all users by name.
func (v *View) Users() iter.Seq[*User] { return scan[User](v, tableUsers, byName, nil) }

// Device returns the device with this id.
func (v *View) Device(id ID) *Device { return get[Device](v, tableDevices, byID, id[:]) }

// DeviceByName returns the user's device of this name, without regard to case.
func (v *View) DeviceByName(user ID, name string) *Device { return deviceByName(v, user, name) }

// DeviceByKey returns the device with this public key.
func (v *View) DeviceByKey(k Key) *Device { return get[Device](v, tableDevices, byKey, k[:]) }

// DeviceByAddr returns the device that has this tunnel address.
func (v *View) DeviceByAddr(a netip.Addr) *Device {
	if v.m.Settings == nil {
		return nil
	}
	a = a.Unmap()
	host, ok := v.m.Settings.host(a)
	if !ok {
		return nil
	}
	first, ok := addrAt(v.m.Settings.Network[0], host)
	if !ok {
		return nil
	}
	d := get[Device](v, tableDevices, byAddr, addrKey(first))
	if d == nil || !slices.Contains(d.Addrs, a) {
		return nil
	}
	return d
}

// Devices yields all devices by id.
func (v *View) Devices() iter.Seq[*Device] { return scan[Device](v, tableDevices, byID, nil) }

// DevicesOf yields a user's devices by name.
func (v *View) DevicesOf(user ID) iter.Seq[*Device] { return devicesOf(v, user) }

// Retired says whether k was a device's key and must not be used again.
func (v *View) Retired(k Key) bool { return get[retired](v, tableRetired, byID, k[:]) != nil }

// Invitation returns the invitation with this id.
func (v *View) Invitation(id ID) *Invitation {
	return get[Invitation](v, tableInvitations, byID, id[:])
}

// InvitationByHash returns the invitation whose token has this SHA-256.
func (v *View) InvitationByHash(h [32]byte) *Invitation {
	return get[Invitation](v, tableInvitations, byHash, h[:])
}

// InvitationsOf yields a user's invitations by id, used ones and ended ones included.
func (v *View) InvitationsOf(user ID) iter.Seq[*Invitation] { return invitationsOf(v, user) }

// Session returns a device's session, also one that has ended and is not yet removed:
// look at Until.
func (v *View) Session(device ID) *Session { return get[Session](v, tableSessions, byID, device[:]) }

// Sessions yields all sessions by end, also those that have ended.
func (v *View) Sessions() iter.Seq[*Session] { return scan[Session](v, tableSessions, byEnd, nil) }

// Policy returns the current policy; nil before Init.
func (v *View) Policy() *PolicyVersion { return v.PolicyVersion(v.m.Policy) }

// PolicyVersion returns version n of the policy.
func (v *View) PolicyVersion(n uint64) *PolicyVersion {
	return get[PolicyVersion](v, tablePolicies, byID, orderKey(n))
}

// Pending returns what waits for a confirmation, or nil.
func (v *View) Pending() *Pending { return v.m.Pending }

// Policies yields all versions of the policy, newest first.
func (v *View) Policies() iter.Seq[*PolicyVersion] {
	return func(yield func(*PolicyVersion) bool) {
		it, err := v.txn.GetReverse(tablePolicies, byID)
		if err != nil {
			v.fail(err)
		}
		for o := it.Next(); o != nil; o = it.Next() {
			if !yield(o.(*PolicyVersion)) {
				return
			}
		}
	}
}

// Audit returns the first limit entries after a Raft index, or with after 0 the newest
// limit entries; always oldest first. A limit below 1 is none.
func (v *View) Audit(after uint64, limit int) []Entry {
	var (
		it  memdb.ResultIterator
		err error
	)
	if after == 0 {
		it, err = v.txn.GetReverse(tableAudit, byID)
	} else {
		it, err = v.txn.LowerBound(tableAudit, byID, orderKey(after+1))
	}
	if err != nil {
		v.fail(err)
	}
	var entries []Entry
	for o := it.Next(); o != nil && (limit < 1 || len(entries) < limit); o = it.Next() {
		entries = append(entries, *o.(*Entry))
	}
	if after == 0 {
		slices.Reverse(entries)
	}
	return entries
}

// Counts of objects, in O(1). Sessions that have ended count until they are removed.
func (v *View) Counts() (users, devices, sessions int) {
	return v.m.users, v.m.devices, v.m.sessions
}

// Shared by views and commands.

func userByName(r reader, name string) *User {
	if name == "" {
		return nil
	}
	return get[User](r, tableUsers, byName, []byte(fold(name)))
}

func deviceByName(r reader, user ID, name string) *Device {
	return get[Device](r, tableDevices, byName, deviceNameKey(user, name))
}

func devicesOf(r reader, user ID) iter.Seq[*Device] {
	return scan[Device](r, tableDevices, byName, user[:])
}

func invitationsOf(r reader, user ID) iter.Seq[*Invitation] {
	return scan[Invitation](r, tableInvitations, byUser, user[:])
}
