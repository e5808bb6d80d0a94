package peers

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestVaultKeepsValues(t *testing.T) {
	c := newCluster(t)
	if _, _, ok := c.View().Vault("acme/a"); ok || len(c.View().VaultNames("")) != 0 {
		t.Fatal("an empty vault has something")
	}
	for _, name := range []string{"acme/b/key", "acme/a", "acme", "acme-2/x", "acme/b/crt", "z/*.example.com@+_"} {
		c.now = c.now.Add(time.Second)
		must(c, VaultPut{name, Sealed("of " + name)})
	}
	value, at, ok := c.View().Vault("acme/a")
	if !ok || string(value) != "of acme/a" || !at.Equal(start.Add(2*time.Second)) {
		t.Errorf("acme/a is %q of %v, %v", value, at, ok)
	}
	names := func(prefix, want string) {
		t.Helper()
		if got := strings.Join(c.View().VaultNames(prefix), " "); got != want {
			t.Errorf("below %q there is %q, want %q", prefix, got, want)
		}
	}
	names("", "acme acme-2/x acme/a acme/b/crt acme/b/key z/*.example.com@+_")
	names("acme", "acme/a acme/b/crt acme/b/key")
	names("acme/", "acme/a acme/b/crt acme/b/key")
	names("acme/b/key", "")
	names("acm", "")

	// Another value takes the place of one, and has a time of its own: the state's.
	c.now = c.now.Add(-time.Minute)
	must(c, VaultPut{"acme/a", Sealed("again")})
	if value, at, _ := c.View().Vault("acme/a"); string(value) != "again" || !at.Equal(start.Add(6*time.Second)) {
		t.Errorf("it is %q of %v now", value, at)
	}

	if r := must(c, VaultRemove{"acme/b"}); r.Count != 2 {
		t.Errorf("%d were removed", r.Count)
	}
	names("", "acme acme-2/x acme/a z/*.example.com@+_")
	if r := must(c, VaultRemove{"acme/b"}); r.Count != 0 {
		t.Errorf("%d were removed where there was nothing", r.Count)
	}
	if r := must(c, VaultRemove{"acme"}); r.Count != 2 {
		t.Errorf("%d were removed", r.Count)
	}
	names("", "acme-2/x z/*.example.com@+_")
	if v := c.View(); v.m.vault != 2 || v.m.vaultSize != len("of acme-2/x")+len("of z/*.example.com@+_") {
		t.Errorf("it counts %d values of %d bytes", v.m.vault, v.m.vaultSize)
	}
}

func TestVaultBounds(t *testing.T) {
	c := newCluster(t)
	long := strings.Repeat("a", maxVaultName)
	for _, name := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "A", "é", "a b", "a\x00", "a\\b", "a:b", long + "a"} {
		for _, b := range []Body{VaultPut{name, Sealed("x")}, VaultRemove{name}, VaultLock{name, id("node"), time.Minute}, VaultUnlock{name, id("node")}} {
			if r := refused(c, b, ErrInvalid); !strings.HasPrefix(r.Err.Error(), "vault_name_invalid") {
				t.Errorf("%q: %v", name, r.Err)
			}
		}
	}
	must(c, VaultPut{long, make(Sealed, maxVaultValue)})
	must(c, VaultRemove{long})
	must(c, VaultPut{"a/...", Sealed("x")})
	must(c, VaultRemove{"a"})
	refused(c, VaultPut{"a", nil}, ErrInvalid)
	refused(c, VaultPut{"a", make(Sealed, maxVaultValue+1)}, ErrLimit)
	refused(c, VaultLock{"a", ID{}, time.Minute}, ErrInvalid)
	for _, length := range []time.Duration{-time.Minute, 0, minVaultLock - 1, maxVaultLock + 1} {
		refused(c, VaultLock{"a", id("node"), length}, ErrInvalid)
	}

	// As many bytes as there may be: what takes another's place counts once.
	large := maxVaultSize / maxVaultValue
	for i := range large {
		must(c, VaultPut{fmt.Sprint("large/", i), make(Sealed, maxVaultValue)})
	}
	refused(c, VaultPut{"more", Sealed("x")}, ErrLimit)
	must(c, VaultPut{"large/0", make(Sealed, maxVaultValue-1)})
	refused(c, VaultPut{"more", Sealed("xx")}, ErrLimit)
	must(c, VaultPut{"more", Sealed("x")})
	must(c, VaultRemove{"more"})
	must(c, VaultRemove{"large"})

	// As many values as there may be.
	for i := range maxVault {
		must(c, VaultPut{fmt.Sprint("small/", i), Sealed("x")})
	}
	refused(c, VaultPut{"more", Sealed("x")}, ErrLimit)
	must(c, VaultPut{"small/0", Sealed("y")})
	if r := must(c, VaultRemove{"small"}); r.Count != maxVault || c.View().m.vault != 0 || c.View().m.vaultSize != 0 {
		t.Errorf("%d were removed; it counts %d values of %d bytes", r.Count, c.View().m.vault, c.View().m.vaultSize)
	}
}

func TestVaultLocks(t *testing.T) {
	c := newCluster(t)
	a, b := id("node a"), id("node b")
	must(c, VaultLock{"order", a, time.Minute})
	r := refused(c, VaultLock{"order", b, time.Minute}, ErrLocked)
	if r.Err.Error() != "vault_locked name=order until=2026-11-23T12:01:00Z" {
		t.Error(r.Err)
	}
	must(c, VaultLock{"order/2", b, time.Minute})
	must(c, VaultUnlock{"order", b})
	must(c, VaultUnlock{"nothing", b})
	refused(c, VaultLock{"order", b, time.Minute}, ErrLocked)

	// Its holder gives it a new end, which the state's time decides and no earlier clock.
	c.now = start.Add(59 * time.Second)
	must(c, VaultLock{"order", a, time.Minute})
	c.now = start.Add(time.Minute + 59*time.Second - 1)
	refused(c, VaultLock{"order", b, time.Minute}, ErrLocked)
	c.now = c.now.Add(1)
	must(c, Expire{})
	c.now = start
	must(c, VaultLock{"order", b, time.Minute})
	refused(c, VaultLock{"order", a, time.Minute}, ErrLocked)
	if n := c.View().m.vaultLocks; n != 1 {
		t.Errorf("%d locks are kept; the other one has ended", n)
	}
	must(c, VaultUnlock{"order", b})
	must(c, VaultLock{"order", a, time.Minute})
	must(c, VaultRemove{"order"})
	refused(c, VaultLock{"order", b, time.Minute}, ErrLocked)

	// An end on a clock that was wrong means nothing.
	c.now = start.Add(-time.Hour)
	must(c, TimeReset{})
	must(c, VaultLock{"order", b, time.Minute})
	if entries := c.View().Audit(0, 100); slices.ContainsFunc(entries, func(e Entry) bool { return strings.Contains(e.Action, "vault") }) {
		t.Error("locks are in the audit log")
	}
	must(c, VaultUnlock{"order", b})

	// As many as there may be; those that have ended make room.
	for i := range maxVaultLocks {
		must(c, VaultLock{fmt.Sprint("lock/", i), a, time.Minute + time.Duration(i)*time.Second})
	}
	refused(c, VaultLock{"more", a, time.Minute}, ErrLimit)
	must(c, VaultLock{"lock/50", a, time.Hour / 6})
	c.now = c.now.Add(time.Minute)
	must(c, VaultLock{"more", a, time.Minute})
	refused(c, VaultLock{"still-more", a, time.Minute}, ErrLimit)
	if n := c.View().m.vaultLocks; n != maxVaultLocks {
		t.Errorf("%d locks are counted", n)
	}
}

// Before level 3 there is no vault; a snapshot of level 2 is read and goes on.
func TestVaultNeedsItsLevel(t *testing.T) {
	c := emptyCluster(t)
	must(c, Init{settings(), "{}"})
	must(c, Upgrade{Level: levelAnswers})
	former := c.snapshot()
	for _, b := range []Body{VaultPut{"a", Sealed("x")}, VaultRemove{"a"}, VaultLock{"a", id("node"), time.Minute}, VaultUnlock{"a", id("node")}} {
		refused(c, b, ErrLevel)
		if c.View().Takes(b) {
			t.Errorf("%T is taken at level %d", b, c.View().Level())
		}
	}
	if err := c.Restore(bytes.NewReader(former)); err != nil {
		t.Fatal(err)
	}
	must(c, Upgrade{Level: levelVault})
	must(c, VaultPut{"a", Sealed("x")})
	must(c, VaultLock{"a", id("node"), time.Minute})

	p := split(t, c.snapshot())
	p.header.Format, p.header.Vpnd = levelAnswers, ""
	if err := New().Restore(bytes.NewReader(p.edit(nil))); err == nil || !strings.Contains(err.Error(), "vault") {
		t.Errorf("a vault below its level: %v", err)
	}
}

// Whoever reads the snapshot goes on as who was there: the same values, times and locks, and
// the same counts of what there may be.
func TestVaultInSnapshots(t *testing.T) {
	c := newCluster(t)
	for i := range 3 {
		c.now = c.now.Add(time.Second)
		must(c, VaultPut{fmt.Sprint("value/", i), make(Sealed, 10+i)})
		must(c, VaultLock{fmt.Sprint("lock/", i), id("node"), time.Duration(3-i) * time.Minute})
	}
	restored := &cluster{TB: t, State: New(), index: c.index, now: c.now}
	if err := restored.Restore(bytes.NewReader(c.snapshot())); err != nil {
		t.Fatal(err)
	}
	if a, b := c.View().m, restored.View().m; a.vault != b.vault || a.vaultSize != b.vaultSize || a.vaultLocks != b.vaultLocks || b.vaultSize != 33 {
		t.Errorf("counted are %+v and %+v", a, b)
	}
	for _, c := range []*cluster{c, restored} {
		if value, at, ok := c.View().Vault("value/1"); !ok || len(value) != 11 || !at.Equal(start.Add(2*time.Second)) {
			t.Errorf("value/1 is %q of %v, %v", value, at, ok)
		}
		must(c, VaultRemove{"value/0"})
		refused(c, VaultLock{"lock/0", id("other"), time.Minute}, ErrLocked)
		c.now = c.now.Add(90 * time.Second)
		must(c, VaultLock{"lock/2", id("other"), time.Minute})
	}
	if !bytes.Equal(c.snapshot(), restored.snapshot()) {
		t.Error("the two differ")
	}

	// What no command could have put there is refused.
	for name, bad := range map[string]any{
		"name":  vaultValue{"../a", 1, Sealed("x")},
		"value": vaultValue{"a", 1, nil},
		"lock":  vaultLock{"a", ID{}, 1}, "lock's name": vaultLock{"A", id("node"), 1}, "lock's end": vaultLock{"a", id("node"), -1},
	} {
		p := split(t, newCluster(t).snapshot())
		raw, err := encMode.Marshal(bad)
		if err != nil {
			t.Fatal(err)
		}
		p.items = append(p.items, raw)
		if _, ok := bad.(vaultValue); ok {
			p.header.Vault++
		} else {
			p.header.VaultLocks++
		}
		err = New().Restore(bytes.NewReader(p.edit(nil)))
		if err == nil || !strings.Contains(err.Error(), "of table vault") || errors.Is(err, ErrUnknownKind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a command costs hardly grows with what is in the vault.
func TestVaultCostDoesNotGrow(t *testing.T) {
	cost := func(n int) float64 {
		c := newCluster(t)
		for i := range n {
			must(c, VaultPut{fmt.Sprint("value/", i), Sealed("x")})
		}
		for i := range min(n, maxVaultLocks-1) {
			must(c, VaultLock{fmt.Sprint("lock/", i), id("node"), time.Minute})
		}
		return testing.AllocsPerRun(20, func() {
			must(c, VaultPut{"value/5", Sealed("y")})
			must(c, VaultLock{"more", id("node"), time.Minute})
			must(c, VaultUnlock{"more", id("node")})
		})
	}
	small, large := cost(10), cost(maxVault)
	if large > 1.8*small {
		t.Errorf("%.0f allocations with 10 values, %.0f with %d", small, large, maxVault)
	}
	t.Logf("%.0f and %.0f allocations", small, large)
}
