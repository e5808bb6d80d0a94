package peers

import (
	"bufio"
	"fmt"
	"io"
)

// A snapshot is a sequence of CBOR items (RFC 8742): a header that counts the rest, and
// the tables one after the other, each in order of its primary key. Its format's number is
// the state's level; old forms stay readable.

type header struct {
	Format      uint64    `cbor:"1,keyasint"`
	Index       uint64    `cbor:"2,keyasint"`
	Time        stamp     `cbor:"3,keyasint"`
	Settings    *Settings `cbor:"4,keyasint,omitempty"`
	Serial      uint32    `cbor:"5,keyasint,omitempty"`
	NextHost    uint32    `cbor:"6,keyasint,omitempty"`
	Releases    uint64    `cbor:"7,keyasint,omitempty"`
	Requests    uint64    `cbor:"8,keyasint,omitempty"`
	Policy      uint64    `cbor:"9,keyasint,omitempty"`
	Users       uint64    `cbor:"10,keyasint,omitempty"`
	Devices     uint64    `cbor:"11,keyasint,omitempty"`
	Invitations uint64    `cbor:"12,keyasint,omitempty"`
	Sessions    uint64    `cbor:"13,keyasint,omitempty"`
	Policies    uint64    `cbor:"14,keyasint,omitempty"`
	Audit       uint64    `cbor:"15,keyasint,omitempty"`
	Retired     uint64    `cbor:"16,keyasint,omitempty"`
	Released    uint64    `cbor:"17,keyasint,omitempty"`
	Remembered  uint64    `cbor:"18,keyasint,omitempty"`
	Pending     *Pending  `cbor:"19,keyasint,omitempty"`
	Forgot      uint64    `cbor:"20,keyasint,omitempty"` // from format 2
	Vpnd        string    `cbor:"21,keyasint,omitempty"` // which vpnd raised the level; from format 3
	Vault       uint64    `cbor:"22,keyasint,omitempty"` // from format 3
	VaultLocks  uint64    `cbor:"23,keyasint,omitempty"` // from format 3
	SelfTests   uint64    `cbor:"24,keyasint,omitempty"` // from format 4
	Places      uint64    `cbor:"25,keyasint,omitempty"` // from format 5
}

// WriteTo writes the canonical snapshot: equal states give equal bytes.
func (v *View) WriteTo(w io.Writer) (int64, error) {
	buffer := bufio.NewWriterSize(w, 64<<10)
	out := &snapshotWriter{w: buffer}
	count := func(table string) (n uint64) {
		it, err := v.txn.Get(table, byID)
		if err != nil {
			v.fail(err)
		}
		for it.Next() != nil {
			n++
		}
		return n
	}
	out.write(header{
		Format: v.m.Level, Index: v.m.Index, Time: v.m.Time, Settings: v.m.Settings,
		Serial: v.m.Serial, NextHost: v.m.NextHost, Releases: v.m.Releases, Requests: v.m.Requests, Policy: v.m.Policy,
		Users: uint64(v.m.users), Devices: uint64(v.m.devices), Invitations: count(tableInvitations),
		Sessions: uint64(v.m.sessions), Policies: count(tablePolicies), Audit: uint64(v.m.audits),
		Retired: count(tableRetired), Released: count(tableReleased), Remembered: count(tableRequests),
		Pending: v.m.Pending, Forgot: v.m.Forgot, Vpnd: v.m.Vpnd, Vault: uint64(v.m.vault), VaultLocks: uint64(v.m.vaultLocks),
		SelfTests: uint64(v.m.selfTests),
		Places:    uint64(v.m.nextPlace),
	})
	writeTable[User](v, out, tableUsers)
	writeTable[Device](v, out, tableDevices)
	writeTable[Invitation](v, out, tableInvitations)
	writeTable[Session](v, out, tableSessions)
	writeTable[PolicyVersion](v, out, tablePolicies)
	writeTable[Entry](v, out, tableAudit)
	writeTable[retired](v, out, tableRetired)
	writeTable[released](v, out, tableReleased)
	for r := range scan[request](v, tableRequests, byOrder, nil) {
		if v.m.Level < levelAnswers {
			out.write(r.former())
		} else {
			out.write(r.wire())
		}
	}
	writeTable[vaultValue](v, out, tableVault)
	writeTable[vaultLock](v, out, tableVaultLocks)
	writeTable[selfTest](v, out, tableSelfTests)
	writeTable[place](v, out, tablePlaces)
	if out.err == nil {
		out.err = buffer.Flush()
	}
	if out.err != nil {
		return out.n, fmt.Errorf("writing the snapshot of index %d: %w", v.m.Index, out.err)
	}
	return out.n, nil
}

type snapshotWriter struct {
	w   io.Writer
	n   int64
	err error
}

func (w *snapshotWriter) write(o any) {
	if w.err != nil {
		return
	}
	b, err := encMode.Marshal(o)
	if err != nil {
		w.err = err
		return
	}
	n, err := w.w.Write(b)
	w.n += int64(n)
	w.err = err
}

func writeTable[T any](v *View, w *snapshotWriter, table string) {
	for o := range scan[T](v, table, byID, nil) {
		w.write(o)
	}
}
