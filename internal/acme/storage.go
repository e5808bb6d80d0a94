package acme

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"vpnd/internal/control"
)

// Vault keeps named values in the replicated state, sealed, with locks that end by themselves.
type Vault interface {
	// Load gives a value and when it was stored; fs.ErrNotExist where there is none.
	Load(name string) (value []byte, at time.Time, err error)
	// Stat is Load without the value; size is its length in bytes.
	Stat(name string) (size int64, at time.Time, err error)
	// List gives the names below prefix, in order.
	List(prefix string) []string
	// Store puts a value.
	Store(ctx context.Context, name string, value []byte) error
	// Delete removes a value and all below its name; nothing there is no error.
	Delete(ctx context.Context, name string) error
	// Lock tries once to take the lock of that name for d; control.ErrLocked while another has it.
	Lock(ctx context.Context, name string, d time.Duration) error
	// Unlock gives it back.
	Unlock(ctx context.Context, name string) error
	// Leads says whether this gateway leads.
	Leads() bool
}

const (
	lockFor  = 5 * time.Minute        // an order takes seconds; a holder that died is waited for as long
	lockPoll = 500 * time.Millisecond // between two tries
)

// storage is certmagic's, in a Vault.
type storage struct{ v Vault }

func (s storage) Store(ctx context.Context, key string, value []byte) error {
	return s.v.Store(ctx, key, value)
}

func (s storage) Load(_ context.Context, key string) ([]byte, error) {
	b, _, err := s.v.Load(key)
	return b, err
}

func (s storage) Delete(ctx context.Context, key string) error { return s.v.Delete(ctx, key) }

func (s storage) Exists(_ context.Context, key string) bool {
	if _, _, err := s.v.Stat(key); err == nil {
		return true
	}
	return len(s.v.List(key)) > 0
}

// List gives the keys right below path, or all of them.
func (s storage) List(_ context.Context, path string, recursive bool) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	for _, name := range s.v.List(path) {
		rest, ok := strings.CutPrefix(name, path+"/")
		if !ok {
			continue
		}
		if first, _, deeper := strings.Cut(rest, "/"); deeper && !recursive {
			name = path + "/" + first
		}
		if !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	if out == nil {
		return nil, fs.ErrNotExist
	}
	return out, nil
}

func (s storage) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	size, at, err := s.v.Stat(key)
	if err == nil {
		return certmagic.KeyInfo{Key: key, Modified: at, Size: size, IsTerminal: true}, nil
	}
	if len(s.v.List(key)) > 0 {
		return certmagic.KeyInfo{Key: key}, nil
	}
	return certmagic.KeyInfo{}, err
}

// Lock waits until it has the lock. A lock ends by itself, so that a dead holder stops nobody.
func (s storage) Lock(ctx context.Context, name string) error {
	for {
		err := s.v.Lock(ctx, name, lockFor)
		if !errors.Is(err, control.ErrLocked) {
			return err
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s storage) Unlock(ctx context.Context, name string) error { return s.v.Unlock(ctx, name) }
