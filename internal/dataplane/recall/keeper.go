package recall

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"vpnd/internal/dataplane"
)

const (
	// every is how often the file is written.
	every = 2 * time.Second
	// share bounds what that costs: reading the peers takes a fiftieth of the time.
	share = 50
)

// Stats are a plane's.
type Stats interface {
	Stats(ctx context.Context, keys ...dataplane.Key) (dataplane.Stats, error)
}

// Keeper writes the file.
type Keeper struct {
	Path    string
	Gateway dataplane.Key // its public key
	Plane   Stats
	Now     func() time.Time
	Log     *slog.Logger

	peers    map[dataplane.Key]peer
	received map[dataplane.Key]int64
	empty    bool // the file has no peers, as it was written last
	said     bool // that it cannot be written
}

// Run writes the file until ctx ends, and once more then. What a former process wrote, and
// nobody has been heard from since, stays in it as long as it is of use.
func (k *Keeper) Run(ctx context.Context) {
	k.peers, k.received = map[dataplane.Key]peer{}, map[dataplane.Key]int64{}
	k.clean()
	if f, err := read(k.Path); err == nil && f.Gateway == key(k.Gateway) {
		for _, p := range f.Peers {
			k.peers[dataplane.Key(p.Key)] = p
		}
	}
	wait := every
	for {
		select {
		case <-ctx.Done():
			k.keep(context.WithoutCancel(ctx), every)
			return
		case <-time.After(wait):
		}
		begun := time.Now()
		k.keep(ctx, wait)
		wait = max(every, share*time.Since(begun))
	}
}

// clean removes what a process left that was killed while it wrote.
func (k *Keeper) clean() {
	left, _ := filepath.Glob(k.Path + ".*") // it fails for a bad pattern alone
	for _, f := range left {
		os.Remove(f)
	}
}

// keep notes who has a session and writes the file; the next time is after wait.
func (k *Keeper) keep(ctx context.Context, wait time.Duration) {
	s, err := k.Plane.Stats(ctx)
	now := k.Now()
	if err == nil {
		k.note(s.Peers, now)
		err = k.write(now, wait)
	}
	if err != nil && !k.said && ctx.Err() == nil {
		k.Log.Warn("noting where clients are; after a restart they will notice it", "what", k.Path, "why", err)
	}
	k.said = err != nil
}

func (k *Keeper) note(stats map[dataplane.Key]dataplane.PeerStats, now time.Time) {
	for id, s := range stats {
		if s.LastHandshake.IsZero() || !s.Endpoint.IsValid() || now.Sub(s.LastHandshake) > life {
			continue
		}
		p := peer{Key: key(id), Endpoint: s.Endpoint, Local: s.Local, Handshake: s.LastHandshake, Heard: k.peers[id].Heard}
		if before, ok := k.received[id]; !ok || s.Received != before {
			p.Heard = now
		}
		k.peers[id], k.received[id] = p, s.Received
	}
	for id, p := range k.peers {
		if _, known := stats[id]; !known || now.Sub(p.Handshake) > life {
			delete(k.peers, id)
			delete(k.received, id)
		}
	}
}

func (k *Keeper) write(now time.Time, wait time.Duration) error {
	if len(k.peers) == 0 && k.empty {
		return nil
	}
	f := file{Format: format, Gateway: key(k.Gateway), Written: now, Next: now.Add(2 * wait), Peers: []peer{}}
	for _, p := range k.peers {
		f.Peers = append(f.Peers, p)
	}
	slices.SortFunc(f.Peers, func(a, b peer) int {
		return cmp.Or(b.Heard.Compare(a.Heard), b.Handshake.Compare(a.Handshake))
	})
	if err := f.write(k.Path); err != nil {
		return err
	}
	k.empty = len(k.peers) == 0
	return nil
}
