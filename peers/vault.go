package peers

import (
	"fmt"
	"strings"
	"time"
)

// The vault has named sealed values of the cluster, from level 3 on: what a gateway gets
// from others and must find again whoever leads, such as certificates and their keys. Names
// are paths of a few plain characters. A lock on a name keeps two nodes from fetching the
// same thing; it ends by itself, on the state's clock, so that a node that died holds
// nobody up. Names of values and of locks have nothing to do with each other.

// vaultValue is one value.
type vaultValue struct {
	Name  string `cbor:"1,keyasint"`
	At    stamp  `cbor:"2,keyasint,omitempty"` // the state's time when it was put there
	Value Sealed `cbor:"3,keyasint"`
}

// vaultLock is one lock. It may have ended.
type vaultLock struct {
	Name   string `cbor:"1,keyasint"`
	Holder ID     `cbor:"2,keyasint"`
	End    stamp  `cbor:"3,keyasint"`
}

// VaultPut puts a value under a name, in the place of the one that is there.
type VaultPut struct {
	Name  string `cbor:"1,keyasint,omitempty"`
	Value Sealed `cbor:"2,keyasint,omitempty"`
}

func (c VaultPut) apply(t *tx) (Result, error) {
	if err := checkVaultName(c.Name); err != nil {
		return Result{}, err
	}
	if err := checkVaultValue(c.Value); err != nil {
		return Result{}, err
	}
	values, size := t.m.vault, t.m.vaultSize+len(c.Value)
	if old := get[vaultValue](t, tableVault, byID, []byte(c.Name)); old != nil {
		size -= len(old.Value)
	} else {
		values++
	}
	if values > maxVault {
		return Result{}, refuse("vault_values_limit", maxVault)
	}
	if size > maxVaultSize {
		return Result{}, refuse("vault_size_limit", size, maxVaultSize)
	}
	t.put(tableVault, &vaultValue{c.Name, t.m.Time, c.Value})
	t.m.vault, t.m.vaultSize = values, size
	return Result{}, nil
}

// VaultRemove removes a value, and all whose names are below its own. There need not be
// any; Count says how many there were.
type VaultRemove struct {
	Name string `cbor:"1,keyasint,omitempty"`
}

func (c VaultRemove) apply(t *tx) (Result, error) {
	if err := checkVaultName(c.Name); err != nil {
		return Result{}, err
	}
	n := 0
	remove := func(x *vaultValue) {
		t.delete(tableVault, x)
		t.m.vault--
		t.m.vaultSize -= len(x.Value)
		n++
	}
	if x := get[vaultValue](t, tableVault, byID, []byte(c.Name)); x != nil {
		remove(x)
	}
	for x := range scan[vaultValue](t, tableVault, byID, []byte(c.Name+"/")) {
		remove(x)
	}
	return Result{Count: n}, nil
}

// VaultLock takes a lock for so long from the state's time, or gives it a new end if this
// holder has it. It is refused while another one has it.
type VaultLock struct {
	Name   string        `cbor:"1,keyasint,omitempty"`
	Holder ID            `cbor:"2,keyasint,omitzero"`
	For    time.Duration `cbor:"3,keyasint,omitempty"`
}

func (c VaultLock) apply(t *tx) (Result, error) {
	if err := checkVaultName(c.Name); err != nil {
		return Result{}, err
	}
	if c.Holder.IsZero() {
		return Result{}, refuse("vault_no_holder")
	}
	if c.For < minVaultLock || c.For > maxVaultLock {
		return Result{}, refuse("vault_lock_length", c.For, minVaultLock, maxVaultLock)
	}
	held := get[vaultLock](t, tableVaultLocks, byID, []byte(c.Name))
	if held != nil && held.Holder != c.Holder && t.m.Time < held.End {
		return Result{}, refuse("vault_locked", c.Name, held.End.time())
	}
	var ended []*vaultLock
	for l := range scan[vaultLock](t, tableVaultLocks, byEnd, nil) {
		if t.m.Time < l.End {
			break
		}
		ended = append(ended, l)
	}
	if held == nil && t.m.vaultLocks-len(ended) >= maxVaultLocks {
		return Result{}, refuse("vault_locks_limit", maxVaultLocks)
	}
	for _, l := range ended {
		t.unlock(l)
	}
	if held == nil || t.m.Time >= held.End {
		t.m.vaultLocks++
	}
	t.put(tableVaultLocks, &vaultLock{c.Name, c.Holder, t.m.Time + stamp(c.For)})
	return Result{}, nil
}

// VaultUnlock gives a lock up. One that this holder has not stays as it is.
type VaultUnlock struct {
	Name   string `cbor:"1,keyasint,omitempty"`
	Holder ID     `cbor:"2,keyasint,omitzero"`
}

func (c VaultUnlock) apply(t *tx) (Result, error) {
	if err := checkVaultName(c.Name); err != nil {
		return Result{}, err
	}
	if l := get[vaultLock](t, tableVaultLocks, byID, []byte(c.Name)); l != nil && l.Holder == c.Holder {
		t.unlock(l)
	}
	return Result{}, nil
}

func (t *tx) unlock(l *vaultLock) {
	t.delete(tableVaultLocks, l)
	t.m.vaultLocks--
}

// endVaultLocks ends all of them: an end on a clock that was wrong means nothing.
func (t *tx) endVaultLocks() {
	for l := range scan[vaultLock](t, tableVaultLocks, byID, nil) {
		t.unlock(l)
	}
}

// checkVaultName checks a path of segments that are safe as names of files, too.
func checkVaultName(name string) error {
	ok := 0 < len(name) && len(name) <= maxVaultName
	for segment := range strings.SplitSeq(name, "/") {
		ok = ok && segment != "" && segment != "." && segment != ".." && !strings.ContainsFunc(segment, func(c rune) bool {
			return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.ContainsRune("._@+*-", c))
		})
	}
	if !ok {
		return refuse("vault_name_invalid", shorten(name))
	}
	return nil
}

func checkVaultValue(value Sealed) error {
	if len(value) == 0 {
		return refuse("vault_value_missing")
	}
	if len(value) > maxVaultValue {
		return refuse("vault_value_too_large", len(value), maxVaultValue)
	}
	return nil
}

// checkVault and checkVaultLock look at what a snapshot has.
func checkVault(x *vaultValue) error {
	if err := checkVaultName(x.Name); err != nil {
		return err
	}
	return checkVaultValue(x.Value)
}

func checkVaultLock(l *vaultLock) error {
	if l.Holder.IsZero() {
		return refuse("vault_no_holder")
	}
	if l.End <= 0 || l.End > maxTime+stamp(maxVaultLock) {
		return fmt.Errorf("the lock %q ends at %d, which is no time", l.Name, l.End)
	}
	return checkVaultName(l.Name)
}

// Vault returns the value of this name, which is shared and read-only, and the state's time
// when it was put there.
func (v *View) Vault(name string) (value Sealed, at time.Time, ok bool) {
	x := get[vaultValue](v, tableVault, byID, []byte(name))
	if x == nil {
		return nil, time.Time{}, false
	}
	return x.Value, x.At.time(), true
}

// VaultNames lists the names below prefix, which is itself a name, in order; "" is above
// all. A slash at its end changes nothing.
func (v *View) VaultNames(prefix string) []string {
	var below []byte
	if prefix = strings.TrimSuffix(prefix, "/"); prefix != "" {
		below = []byte(prefix + "/")
	}
	var names []string
	for x := range scan[vaultValue](v, tableVault, byID, below) {
		names = append(names, x.Name)
	}
	return names
}
