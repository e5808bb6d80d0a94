package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"
	"time"

	"vpnd/internal/control/controltest"
	"vpnd/internal/store"
	"vpnd/peers"
)

func TestVaultKeepsValuesSealed(t *testing.T) {
	w := newWorld(t)
	v, ctx := w.Vault(), t.Context()
	secret := []byte("the private key of a certificate")
	const name = "certificates/ca.example-directory/vpn.example.com/vpn.example.com.key"
	if _, _, err := v.Load(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("loaded from nothing: %v", err)
	}
	if _, _, err := v.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("looked at nothing: %v", err)
	}
	if err := v.Store(ctx, name, secret); err != nil {
		t.Fatal(err)
	}
	got, at, err := v.Load(name)
	if err != nil || !bytes.Equal(got, secret) || !at.Equal(w.View().Time()) {
		t.Errorf("loaded %q of %v, %v", got, at, err)
	}
	if size, at2, err := v.Stat(name); err != nil || size != int64(len(secret)) || !at2.Equal(at) {
		t.Errorf("it has %d bytes of %v, %v", size, at2, err)
	}
	for _, b := range w.store.Log() {
		if bytes.Contains(b, secret[:8]) {
			t.Fatal("the log has the value in clear")
		}
	}
	if err := v.Store(ctx, "certificates/empty", nil); err != nil {
		t.Fatal(err)
	}
	if got, _, err := v.Load("certificates/empty"); err != nil || len(got) != 0 {
		t.Errorf("an empty value is %q, %v", got, err)
	}
	if got := v.List("certificates"); !slices.Equal(got, []string{name, "certificates/empty"}) {
		t.Errorf("the list is %q", got)
	}
	if err := v.Delete(ctx, "certificates/ca.example-directory"); err != nil {
		t.Fatal(err)
	}
	if got := v.List(""); !slices.Equal(got, []string{"certificates/empty"}) {
		t.Errorf("the list is %q", got)
	}
	if err := v.Delete(ctx, "nothing"); err != nil {
		t.Errorf("deleting nothing: %v", err)
	}
	wantCode(t, v.Store(ctx, "../etc/passwd", secret), KindInvalid)
	wantCode(t, v.Store(ctx, "large", make([]byte, 64<<10)), KindLimit)
	if err := v.Store(ctx, "large", make([]byte, 64<<10-29)); err != nil {
		t.Errorf("the largest value: %v", err)
	}
}

// A value is sealed for its name and its cluster: moved by who can write the state but has
// no key, it does not open.
func TestVaultRefusesMovedValues(t *testing.T) {
	w := newWorld(t)
	v, ctx := w.Vault(), t.Context()
	if err := v.Store(ctx, "a/key", []byte("of a")); err != nil {
		t.Fatal(err)
	}
	sealed, _, _ := w.View().Vault("a/key")
	set, _ := w.View().Settings()
	for name, moved := range map[string]peers.Sealed{
		"b/key": sealed, "c/key": set.PrivateKey, "d/key": append(bytes.Clone(sealed[:len(sealed)-1]), sealed[len(sealed)-1]^1), "e/key": {1},
	} {
		if _, _, err := proposeTo(ctx, w.store, gatewayCommand(w.View(), w.now(), peers.VaultPut{Name: name, Value: moved})); err != nil {
			t.Fatal(err)
		}
		if got, _, err := v.Load(name); !errors.Is(err, ErrSealed) || got != nil {
			t.Errorf("%s: loaded %q, %v", name, got, err)
		}
		if size, _, err := v.Stat(name); err != nil || size < 0 {
			t.Errorf("%s: %d bytes, %v", name, size, err)
		}
	}
	if _, err := w.sealer.Open(newID(), fieldVault("a/key"), sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("opened for another cluster: %v", err)
	}
}

// A lock keeps other processes away until it is given up or ends, by the state's time.
func TestVaultLockEnds(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	a := w.Vault()
	b := New(Config{Store: w.store, Gateway: w.gateway, Sealer: w.sealer, Now: w.clock}).Vault()
	lock := func(v *Vault, want error) {
		t.Helper()
		if err := v.Lock(ctx, "order", time.Minute); !errors.Is(err, want) || want == nil && err != nil {
			t.Fatalf("the lock: %v, want %v", err, want)
		}
	}
	lock(a, nil)
	lock(b, ErrLocked)
	if e := wantCode(t, b.Lock(ctx, "order", time.Minute), KindLocked); e.Code != "vault_locked" {
		t.Errorf("it is refused as %v", e)
	}
	if err := b.Unlock(ctx, "order"); err != nil {
		t.Error(err)
	}
	lock(b, ErrLocked)
	w.advance(50 * time.Second)
	lock(a, nil) // a new end
	w.advance(50 * time.Second)
	lock(b, ErrLocked)
	w.advance(10 * time.Second)
	lock(b, nil)
	lock(a, ErrLocked)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := a.Lock(gone, "other", time.Minute); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("locked for somebody who is gone: %v", err)
	}
	if err := b.Unlock(gone, "order"); err != nil {
		t.Errorf("giving up on the way out: %v", err)
	}
	lock(a, nil)
	wantCode(t, a.Lock(ctx, "order", time.Hour), KindInvalid)
}

// Every node reads; only the one that leads orders.
func TestVaultElsewhere(t *testing.T) {
	w := newWorld(t)
	s, r, _ := w.elsewhere()
	ctx := t.Context()
	if err := w.Vault().Store(ctx, "challenge", []byte("token")); err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(ctx, w.View().Index()); err != nil {
		t.Fatal(err)
	}
	v := s.Vault()
	if got, _, err := v.Load("challenge"); err != nil || string(got) != "token" || !slices.Equal(v.List(""), []string{"challenge"}) {
		t.Errorf("the other node has %q, %v", got, err)
	}
	if v.Leads() || !w.Vault().Leads() {
		t.Error("the wrong one leads")
	}
	every := func(v *Vault, code string) {
		t.Helper()
		for _, err := range []error{v.Store(ctx, "a", nil), v.Delete(ctx, "challenge"), v.Lock(ctx, "a", time.Minute), v.Unlock(ctx, "a")} {
			if e := wantCode(t, err, KindNoLeader); e.Code != code {
				t.Errorf("refused as %v, want %s", e, code)
			}
		}
	}
	every(v, "no_leader")
	w.store.Follower.Store(true)
	every(w.Vault(), "no_leader")
	w.store.Follower.Store(false)
	w.store.SetFail(store.ErrNoLeader) // lost between the question and the command
	every(w.Vault(), "leader_lost")
	w.store.SetFail(nil)
	if got, _, err := w.Vault().Load("challenge"); err != nil || string(got) != "token" {
		t.Errorf("what was refused has changed it: %q, %v", got, err)
	}
}

// Below level 3 there is no vault, and whoever leads raises the state to it first.
func TestVaultNeedsItsLevel(t *testing.T) {
	sealer, err := NewSealer(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	st := &heldBack{Store: controltest.NewStore(), hold: true}
	v := New(Config{Store: st, Gateway: &controltest.Gateway{}, Sealer: sealer}).Vault()
	ctx := t.Context()
	wantCode(t, v.Store(ctx, "a", nil), KindInvalid) // there is no cluster yet
	set, err := newSettings(sealer, BootstrapConfig{Endpoint: "vpn.example.com:51820"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := proposeTo(ctx, st, gatewayCommand(v.n.View(), time.Now(), peers.Init{Settings: set, Policy: "{}"})); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{v.Store(ctx, "a", nil), v.Delete(ctx, "a"), v.Lock(ctx, "a", time.Minute), v.Unlock(ctx, "a")} {
		if e := wantCode(t, err, KindUnavailable); e.Code != "not_upgraded" {
			t.Errorf("refused as %v", e)
		}
	}
	if _, _, err := v.Load("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	st.hold = false
	if err := v.Store(ctx, "a", []byte("x")); err != nil {
		t.Errorf("at its level: %v", err)
	}
}

// heldBack does not raise the state's level, as with a member that does not know it.
type heldBack struct {
	*controltest.Store
	hold bool
}

func (s *heldBack) Propose(ctx context.Context, c peers.Command) (uint64, peers.Result, error) {
	if _, up := c.Body.(peers.Upgrade); up && s.hold {
		return 0, peers.Result{}, fmt.Errorf("a member does not know that level")
	}
	return s.Store.Propose(ctx, c)
}
