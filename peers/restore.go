package peers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/fxamacker/cbor/v2"
	"github.com/hashicorp/go-memdb"
)

// Restore replaces the state by what a View's WriteTo wrote. After an error the state is
// as it was before.
func (s *State) Restore(r io.Reader) error {
	db, m, err := readSnapshot(bufio.NewReaderSize(r, 64<<10))
	if err != nil {
		return fmt.Errorf("restoring a snapshot: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publish(newView(db, m, &journal{forgot: m.Index}))
	return nil
}

func readSnapshot(r io.Reader) (*memdb.MemDB, meta, error) {
	db, err := memdb.NewMemDB(schema())
	if err != nil {
		return nil, meta{}, err
	}
	dec := decMode.NewDecoder(r)
	h, err := readHeader(dec)
	if err != nil {
		return nil, meta{}, err
	}
	t := &tx{db: db, txn: db.Txn(true)}
	defer t.txn.Abort() // does nothing after Commit
	var routes []netip.Prefix
	vaultSize := 0
	for _, read := range []func() error{
		func() error { return readTable[User](t, dec, tableUsers, h.Users, nil) },
		func() error {
			return readTable(t, dec, tableDevices, h.Devices, func(d *Device) error {
				if len(d.Addrs) == 0 {
					return fmt.Errorf("device %s has no address", d.ID)
				}
				// Most devices have the same routes: they share one list, as those do
				// that Apply made.
				if slices.Equal(d.Routes, routes) {
					d.Routes = routes
				} else {
					routes = d.Routes
				}
				return nil
			})
		},
		func() error { return readTable[Invitation](t, dec, tableInvitations, h.Invitations, nil) },
		func() error { return readTable[Session](t, dec, tableSessions, h.Sessions, nil) },
		func() error { return readTable[PolicyVersion](t, dec, tablePolicies, h.Policies, nil) },
		func() error { return readTable[Entry](t, dec, tableAudit, h.Audit, nil) },
		func() error { return readTable[retired](t, dec, tableRetired, h.Retired, nil) },
		func() error { return readTable[released](t, dec, tableReleased, h.Released, nil) },
		func() error { return readAnswers(t, dec, h) },
		func() error {
			return readTable(t, dec, tableVault, h.Vault, func(x *vaultValue) error {
				vaultSize += len(x.Value)
				return checkVault(x)
			})
		},
		func() error { return readTable(t, dec, tableVaultLocks, h.VaultLocks, checkVaultLock) },
		func() error {
			return readTable(t, dec, tableSelfTests, h.SelfTests, func(x *selfTest) error { return checkSelfTest(x, h.Settings) })
		},
		func() error {
			if h.Places > 0 && h.Settings == nil {
				return errors.New("there are places without a network")
			}
			if h.Places == 0 {
				return nil
			}
			return readTable(t, dec, tablePlaces, h.Places, checkPlace(h.Settings.Network))
		},
	} {
		if err := read(); err != nil {
			return nil, meta{}, err
		}
	}
	if err := dec.Skip(); !errors.Is(err, io.EOF) {
		return nil, meta{}, errors.New("something follows its end")
	}
	if err := checkUnique(t, h); err != nil {
		return nil, meta{}, err
	}
	if p := h.Pending; p != nil && (p.Version != h.Policy || get[PolicyVersion](t, tablePolicies, byID, orderKey(p.Back)) == nil) {
		return nil, meta{}, fmt.Errorf("version %d of the policy waits for a confirmation, and %d is in force: it or version %d is missing", p.Version, h.Policy, p.Back)
	}
	t.txn.Commit()
	return db, meta{
		Index: h.Index, Time: h.Time, Settings: h.Settings, Serial: h.Serial, NextHost: h.NextHost,
		Releases: h.Releases, Requests: h.Requests, Policy: h.Policy, Pending: h.Pending,
		Level: h.Format, Vpnd: h.Vpnd, Forgot: h.Forgot,
		users: int(h.Users), devices: int(h.Devices), sessions: int(h.Sessions), audits: int(h.Audit),
		vault: int(h.Vault), vaultSize: vaultSize, vaultLocks: int(h.VaultLocks), selfTests: int(h.SelfTests), nextPlace: uint32(h.Places),
		policyAt: h.Index, settingsAt: h.Index,
	}, nil
}

func readHeader(dec *cbor.Decoder) (header, error) {
	// The format's number comes first, and must be known before the rest can be read.
	var raw cbor.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return header{}, fmt.Errorf("reading its header: %w", err)
	}
	var f struct {
		Format uint64 `cbor:"1,keyasint"`
		Vpnd   string `cbor:"21,keyasint"`
	}
	if err := lenient.Unmarshal(raw, &f); err != nil {
		return header{}, fmt.Errorf("reading its format: %w", err)
	}
	if f.Format < levelFirst {
		return header{}, fmt.Errorf("its format is %d: there never was one", f.Format)
	}
	if f.Format > newestLevel {
		return header{}, &TooNew{f.Format, versionOrNone(f.Vpnd)}
	}
	var h header
	if err := decMode.Unmarshal(raw, &h); err != nil {
		return header{}, fmt.Errorf("reading its header: %w", err)
	}
	if h.Vpnd != versionOrNone(h.Vpnd) || h.Format < levelNamed && h.Vpnd != "" {
		return header{}, fmt.Errorf("reading its header: format %d has no %q", h.Format, h.Vpnd)
	}
	if h.Format < levelAnswers && (h.Forgot != 0 || h.Settings != nil && h.Settings.MTU != 0) {
		return header{}, fmt.Errorf("reading its header: it has fields that format %d has not", h.Format)
	}
	if h.Format < levelVault && (h.Vault != 0 || h.VaultLocks != 0) {
		return header{}, fmt.Errorf("reading its header: it has a vault, which format %d has not", h.Format)
	}
	if h.Format < levelSelfTest && h.SelfTests != 0 {
		return header{}, fmt.Errorf("reading its header: it has self-tests, which format %d has not", h.Format)
	}
	if h.Format < levelResources && h.Places != 0 {
		return header{}, fmt.Errorf("reading its header: it has places of resources, which format %d has not", h.Format)
	}
	if h.Settings != nil {
		if err := checkNetwork(h.Settings.Network); err != nil {
			return header{}, fmt.Errorf("reading its network: %w", err)
		}
	}
	return h, nil
}

// checkUnique refuses a snapshot in which two objects have the same key of some index: the
// tables would silently keep one of them there.
func checkUnique(t *tx, h header) error {
	want := []struct {
		table string
		n     uint64
	}{
		{tableUsers, h.Users}, {tableDevices, h.Devices}, {tableInvitations, h.Invitations}, {tableSessions, h.Sessions},
		{tablePolicies, h.Policies}, {tableAudit, h.Audit}, {tableRetired, h.Retired}, {tableReleased, h.Released}, {tableRequests, h.Remembered},
		{tableVault, h.Vault}, {tableVaultLocks, h.VaultLocks}, {tableSelfTests, h.SelfTests}, {tablePlaces, h.Places},
	}
	tables := schema().Tables
	for _, w := range want {
		for index := range tables[w.table].Indexes {
			it, err := t.txn.Get(w.table, index)
			if err != nil {
				return err
			}
			n := uint64(0)
			for it.Next() != nil {
				n++
			}
			if n != w.n {
				return fmt.Errorf("table %s has %d objects and only %d of them by %s", w.table, w.n, n, index)
			}
		}
	}
	return nil
}

// readTable reads n objects. check, where given, looks at each before it is stored.
func readTable[T any](t *tx, dec *cbor.Decoder, table string, n uint64, check func(*T) error) error {
	for i := range n {
		o := new(T)
		err := dec.Decode(o)
		if err == nil && check != nil {
			err = check(o)
		}
		if err == nil {
			t.put(table, o)
			err = t.err
		}
		if err != nil {
			return fmt.Errorf("reading %d of %d of table %s: %w", i+1, n, table, err)
		}
	}
	return nil
}
