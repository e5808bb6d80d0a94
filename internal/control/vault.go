package control

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	"vpnd/peers"
)

// ErrLocked means that another process has the lock.
var ErrLocked = peers.ErrLocked

// Vault keeps what the gateway got from others, such as certificates with their keys, sealed
// in the state. It is for the gateway's own work: no edge leads to it. Every node reads;
// only the one that leads changes anything, and what it has changed it reads at once. Names
// and sizes are bounded (peers/vault.go). Its methods may be called concurrently.
type Vault struct {
	n      *node
	holder peers.ID // of locks: this process
}

// Vault returns the vault, the same at every call.
func (s *Service) Vault() *Vault { return s.vault }

// fieldVault is the field of a sealed value: it has its name, so that a value that was moved
// to another name does not open.
func fieldVault(name string) string { return "vault/" + name }

// Leads says whether this node leads now.
func (v *Vault) Leads() bool { return v.n.store.Leader() }

// Load returns the value of this name as this node has it, and the state's time when it was
// stored; fs.ErrNotExist where there is none, ErrSealed where it does not open.
func (v *Vault) Load(name string) (value []byte, at time.Time, err error) {
	view := v.n.View()
	sealed, at, ok := view.Vault(name)
	set, _ := view.Settings() // a state without settings has no values
	if !ok {
		return nil, time.Time{}, fmt.Errorf("load %s of the vault: %w", name, fs.ErrNotExist)
	}
	if value, err = v.n.sealer.Open(set.Cluster, fieldVault(name), sealed); err != nil {
		return nil, time.Time{}, err
	}
	return value, at, nil
}

// Stat returns the size that Load would return, and the time; fs.ErrNotExist where there is
// none.
func (v *Vault) Stat(name string) (size int64, at time.Time, err error) {
	sealed, at, ok := v.n.View().Vault(name)
	if !ok {
		return 0, time.Time{}, fmt.Errorf("look at %s of the vault: %w", name, fs.ErrNotExist)
	}
	return int64(v.n.sealer.plainSize(sealed)), at, nil
}

// List returns the names of the values below prefix, at every depth and in order; "" is
// above all. Whether prefix has a slash at its end makes no difference.
func (v *Vault) List(prefix string) []string { return v.n.View().VaultNames(prefix) }

// Store puts a value under a name, in the place of the one that is there.
func (v *Vault) Store(ctx context.Context, name string, value []byte) error {
	set, ok := v.n.View().Settings()
	if !ok {
		return fmt.Errorf("store %s in the vault: %w", name, Refuse("state_empty"))
	}
	sealed, err := v.n.sealer.Seal(set.Cluster, fieldVault(name), value)
	if err != nil {
		return err
	}
	return v.propose(ctx, "store", name, peers.VaultPut{Name: name, Value: sealed})
}

// Delete removes the value of this name and all below it. There need not be any.
func (v *Vault) Delete(ctx context.Context, name string) error {
	return v.propose(ctx, "delete", name, peers.VaultRemove{Name: name})
}

// Lock tries once to take a lock, which ends by itself after d, of the state's time; it is
// ErrLocked while another process has it. This process may take it again, which gives it a
// new end: it does not keep two goroutines of one process apart.
func (v *Vault) Lock(ctx context.Context, name string, d time.Duration) error {
	return v.propose(ctx, "lock", name, peers.VaultLock{Name: name, Holder: v.holder, For: d})
}

// Unlock gives a lock up, also for somebody who goes away. One that this process has not
// stays as it is.
func (v *Vault) Unlock(ctx context.Context, name string) error {
	return v.propose(context.WithoutCancel(ctx), "unlock", name, peers.VaultUnlock{Name: name, Holder: v.holder})
}

// propose commits a command and waits until it is applied, on the node that leads.
func (v *Vault) propose(ctx context.Context, doing, name string, body peers.Body) error {
	if !v.Leads() {
		return fmt.Errorf("%s %s in the vault: %w", doing, name, Refuse("no_leader"))
	}
	if err := v.n.upgrade(ctx); err != nil {
		v.n.log.Warn("the state's level could not be raised", "what", "state.upgrade", "why", cause(err))
	}
	if _, _, err := proposeTo(ctx, v.n.store, gatewayCommand(v.n.View(), v.n.now(), body)); err != nil {
		return fmt.Errorf("%s %s in the vault: %w", doing, name, err)
	}
	return nil
}
