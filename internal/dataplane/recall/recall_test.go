package recall

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vpnd/internal/dataplane"
)

var (
	gateway = dataplane.Key{1}
	at      = netip.MustParseAddrPort("192.0.2.1:51820")
	local   = netip.MustParseAddr("198.51.100.200")
)

// plane tells what it is told to.
type plane struct {
	mu    sync.Mutex
	peers map[dataplane.Key]dataplane.PeerStats
	err   error
}

func (p *plane) Stats(context.Context, ...dataplane.Key) (dataplane.Stats, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return dataplane.Stats{Peers: p.peers}, p.err
}

func (p *plane) set(f func(map[dataplane.Key]dataplane.PeerStats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	peers := map[dataplane.Key]dataplane.PeerStats{}
	for k, v := range p.peers {
		peers[k] = v
	}
	f(peers)
	p.peers = peers
}

// keys are the peers that would be recalled now, in order, by their first byte.
func keys(t *testing.T, path string) string {
	t.Helper()
	r, say := Read(path, gateway, time.Now())
	if say != "" {
		t.Errorf("it says: %s", say)
	}
	var b []byte
	for _, p := range r.Peers {
		b = append(b, p.Key[0])
	}
	return string(b)
}

func run(t *testing.T, path string, p *plane) (stop func()) {
	k := &Keeper{Path: path, Gateway: gateway, Plane: p, Now: time.Now, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { k.Run(ctx); close(done) }()
	return func() { cancel(); <-done }
}

// Who has a session is written every 2 s and at the end, those with traffic first; who has
// been silent for too long, and who is no device any more, goes.
func TestKeeper(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints")
	synctest.Test(t, func(t *testing.T) {
		p := &plane{}
		stop := run(t, path, p)
		time.Sleep(3 * time.Second)
		peer := func(ago time.Duration, received int64) dataplane.PeerStats {
			return dataplane.PeerStats{Endpoint: at, Local: local, LastHandshake: time.Now().Add(-ago), Received: received}
		}
		p.set(func(m map[dataplane.Key]dataplane.PeerStats) {
			m[dataplane.Key{'a'}] = peer(100*time.Second, 100)
			m[dataplane.Key{'b'}] = peer(50*time.Second, 100)
			m[dataplane.Key{'c'}] = peer(200*time.Second, 100) // its keys are dead
			m[dataplane.Key{'d'}] = dataplane.PeerStats{Endpoint: at}
		})
		time.Sleep(2 * time.Second)
		if got := keys(t, path); got != "ba" {
			t.Errorf("recalled: %q", got)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the file: %v, %v", info, err)
		}
		p.set(func(m map[dataplane.Key]dataplane.PeerStats) { m[dataplane.Key{'a'}] = peer(102*time.Second, 101) })
		time.Sleep(2 * time.Second)
		if got := keys(t, path); got != "ab" {
			t.Errorf("with traffic from a: %q", got)
		}
		p.set(func(m map[dataplane.Key]dataplane.PeerStats) {
			delete(m, dataplane.Key{'b'})
			m[dataplane.Key{'e'}] = peer(0, 1)
		})
		stop()
		if got := keys(t, path); got != "ea" {
			t.Errorf("at the end: %q", got)
		}
		r, _ := Read(path, gateway, time.Now())
		if want := (dataplane.Sighting{Key: dataplane.Key{'e'}, Endpoint: at, Local: local}); r.Peers[0] != want || !r.After.IsZero() {
			t.Errorf("recalled: %+v, after %v; want %+v", r.Peers[0], r.After, want)
		}

		// The next process keeps who has not been heard yet, until it is of no use.
		p.set(func(m map[dataplane.Key]dataplane.PeerStats) {
			m[dataplane.Key{'a'}], m[dataplane.Key{'e'}] = dataplane.PeerStats{}, dataplane.PeerStats{}
		})
		stop = run(t, path, p)
		time.Sleep(10 * time.Second)
		if got := keys(t, path); got != "ea" {
			t.Errorf("after a restart: %q", got)
		}
		time.Sleep(100 * time.Second)
		if got := keys(t, path); got != "e" {
			t.Errorf("later: %q", got)
		}
		stop()
	})
	if list, _ := filepath.Glob(path + ".*"); len(list) > 0 {
		t.Errorf("left: %v", list)
	}
}

// counting counts what is said.
type counting struct {
	slog.Handler
	n *int
}

func (c counting) Enabled(context.Context, slog.Level) bool  { return true }
func (c counting) Handle(context.Context, slog.Record) error { *c.n++; return nil }

// A failure is said once, until it has worked again, and what is there stays.
func TestKeeperFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints")
	synctest.Test(t, func(t *testing.T) {
		p := &plane{peers: map[dataplane.Key]dataplane.PeerStats{{'a'}: {Endpoint: at, LastHandshake: time.Now()}}}
		said := 0
		k := &Keeper{Path: path, Gateway: gateway, Plane: p, Now: time.Now, Log: slog.New(counting{slog.DiscardHandler, &said})}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { k.Run(ctx); close(done) }()
		time.Sleep(3 * time.Second)
		p.mu.Lock()
		p.err = errors.New("broken")
		p.mu.Unlock()
		time.Sleep(10 * time.Second)
		cancel()
		<-done
		if said != 1 {
			t.Errorf("said %d times", said)
		}
		if got := keys(t, path); got != "a" {
			t.Errorf("recalled: %q", got)
		}
	})
}

// A temporary file of a process that was killed goes.
func TestKeeperCleans(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints")
	if err := os.WriteFile(path+".123", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, path, &plane{})()
	if _, err := os.Stat(path + ".123"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is there: %v", err)
	}
}

func TestRead(t *testing.T) {
	written := time.Now().Truncate(time.Second)
	peers := []peer{{Key: key{7}, Endpoint: at, Local: local, Handshake: written}, {Key: key{8}, Endpoint: netip.MustParseAddrPort("[2001:db8::1]:5"), Handshake: written}}
	good := &file{Format: format, Gateway: key(gateway), Written: written, Next: written.Add(4 * time.Second), Peers: peers}
	for _, c := range []struct {
		name    string
		change  func(f *file)
		clock   time.Duration // of the reader, against the file's
		peers   int
		after   time.Duration // against the file's; 0: at once
		mention string
	}{
		{"fresh", nil, time.Second, 2, 0, ""},
		{"nearly too old", nil, 179 * time.Second, 2, 0, ""},
		{"too old", nil, 181 * time.Second, 0, 0, ""},
		{"the clock is behind", nil, -10 * time.Second, 2, 4 * time.Second, "the clock is 10s behind"},
		{"the clock is as far behind as is waited for", nil, -30 * time.Second, 2, 0 - time.Nanosecond, "shaken hands with in 30s"},
		{"the clock is too far behind", nil, -31 * time.Second, 0, 0, "the clock is 31s behind"},
		{"another gateway's", func(f *file) { f.Gateway = key{2} }, 0, 0, 0, "another gateway's"},
		{"of another version", func(f *file) { f.Format = 2 }, 0, 0, 0, "format 2"},
		{"without an address", func(f *file) { f.Peers = []peer{{Key: key{7}}} }, 0, 0, 0, "damaged"},
		{"nobody", func(f *file) { f.Peers = nil }, -10 * time.Second, 0, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "endpoints")
			f := *good
			if c.change != nil {
				c.change(&f)
			}
			if err := f.write(path); err != nil {
				t.Fatal(err)
			}
			r, say := Read(path, gateway, written.Add(c.clock))
			if len(r.Peers) != c.peers || (say == "") != (c.mention == "") || !strings.Contains(say, c.mention) {
				t.Errorf("%d peers; it says %q", len(r.Peers), say)
			}
			switch {
			case c.after == 0 && !r.After.IsZero(), c.after > 0 && !r.After.Equal(written.Add(c.after)):
				t.Errorf("after %v", r.After.Sub(written))
			case c.after < 0 && r.After.Sub(written.Add(c.clock)) != maxBehind:
				t.Errorf("it is waited for %v", r.After.Sub(written.Add(c.clock)))
			}
		})
	}
}

// Whatever lies there is ignored, and said.
func TestReadOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints")
	if _, say := Read(path, gateway, time.Now()); say != "" {
		t.Errorf("no file: it says %q", say)
	}
	f := &file{Format: format, Gateway: key(gateway), Written: time.Now()}
	if err := f.write(path); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{nil, whole[:len(whole)/2], slices.Concat(whole, whole), []byte("[]"), []byte(`{"format":1,"more":1}`), {0xff, 0}} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, say := Read(path, gateway, time.Now()); !strings.Contains(say, "is not used") || len(r.Peers) > 0 {
			t.Errorf("%.40q: it says %q", text, say)
		}
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, say := Read(path, gateway, time.Now()); !strings.Contains(say, "is not used") {
		t.Errorf("a file that everybody may write: it says %q", say)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, say := Read(path, gateway, time.Now()); !strings.Contains(say, "is not used") {
		t.Errorf("a folder: it says %q", say)
	}
}
