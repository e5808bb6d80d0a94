package control

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vpnd/acl"
	"vpnd/internal/dataplane"
	"vpnd/peers"
)

// memStore is a Store whose log is memory: it applies what is proposed at once, through
// the encoding, as Raft would.
type memStore struct {
	mu       sync.Mutex
	state    *peers.State
	index    uint64
	bodies   []peers.Body
	log      [][]byte // the encoded commands
	follower atomic.Bool
	fail     error        // the next proposals' outcome; guarded by mu
	slow     atomic.Int64 // ns that a commit takes
}

func newMemStore() *memStore { return &memStore{state: peers.New()} }

func (m *memStore) NodeID() string      { return strings.Repeat("ab", 16) }
func (m *memStore) State() *peers.State { return m.state }
func (m *memStore) Leader() bool        { return !m.follower.Load() }

func (m *memStore) setFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *memStore) Propose(ctx context.Context, c peers.Command) (uint64, peers.Result, error) {
	time.Sleep(time.Duration(m.slow.Load()))
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, peers.Result{}, err
	}
	if m.fail != nil {
		return 0, peers.Result{}, m.fail
	}
	b, err := peers.Encode(c)
	if err != nil {
		return 0, peers.Result{}, err
	}
	m.index++
	m.bodies = append(m.bodies, c.Body)
	m.log = append(m.log, b)
	res, err := m.state.Apply(m.index, b)
	if err != nil {
		panic(err)
	}
	return m.index, res, nil
}

// proposed counts commands of one kind.
func proposed[T peers.Body](m *memStore) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.bodies {
		if _, ok := b.(T); ok {
			n++
		}
	}
	return n
}

// fakeGateway holds everything at once, unless it is told to fail.
type fakeGateway struct {
	mu     sync.Mutex
	waited []uint64
	fail   error
	rules  *acl.Ruleset
	passes func(dataplane.Flow) (bool, error)
	plane  string
	peers  map[dataplane.Key]dataplane.PeerStats
}

func (g *fakeGateway) Wait(_ context.Context, index uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waited = append(g.waited, index)
	return g.fail
}

func (g *fakeGateway) Applied() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waited) == 0 {
		return 0
	}
	return g.waited[len(g.waited)-1]
}

func (g *fakeGateway) Rules() *acl.Ruleset {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rules
}

func (g *fakeGateway) Stats(context.Context, ...dataplane.Key) (dataplane.Stats, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return dataplane.Stats{Plane: cmp.Or(g.plane, "fake"), Detail: "a plane of a test", Peers: g.peers}, g.fail
}

func (g *fakeGateway) Permits(_ context.Context, f dataplane.Flow) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.passes == nil {
		return false, errors.New("the plane was not asked before")
	}
	return g.passes(f)
}

func (g *fakeGateway) set(change func(*fakeGateway)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(g)
}

// world is a bootstrapped Service with fakes below it.
type world struct {
	*Service
	t       testing.TB
	store   *memStore
	gateway *fakeGateway
	key     []byte
	log     *syncBuffer
	offset  atomic.Int64 // of the wall clock, in ns
}

// syncBuffer is a log that may be written to by many.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) logf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(&s.b, format+"\n", args...)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, store: newMemStore(), gateway: &fakeGateway{}, key: bytes.Repeat([]byte{7}, 32), log: &syncBuffer{}}
	sealer, err := NewSealer(w.key)
	if err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) }
	first, err := Bootstrap(t.Context(), w.store, sealer, BootstrapConfig{Endpoint: "vpn.example.com:51820", Now: clock})
	if err != nil || !first {
		t.Fatalf("Bootstrap = %v, %v", first, err)
	}
	w.Service = New(Config{Store: w.store, Gateway: w.gateway, Sealer: sealer, Now: clock, Version: "test", Logf: w.log.logf})
	return w
}

// advance moves the wall clock.
func (w *world) advance(d time.Duration) { w.offset.Add(int64(d)) }

// nextPeriod moves the clock to the start of the next TOTP step but one: whatever was
// accepted before, the code shown then is new.
func (w *world) nextPeriod() {
	now := w.now()
	w.advance(totpStart(totpStep(now) + 2).Sub(now))
}

func (w *world) codeNow(secret string) string {
	w.t.Helper()
	c, err := totpCode(secret, totpStep(w.now()))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// wrongCode is six digits that are right for no step near now.
func (w *world) wrongCode(secret string) string {
	w.t.Helper()
	for n := 0; ; n++ {
		c := fmt.Sprintf("%06d", n)
		right := false
		for s := totpStep(w.now()) - 5; s <= totpStep(w.now())+5; s++ {
			code, err := totpCode(secret, s)
			if err != nil {
				w.t.Fatal(err)
			}
			right = right || code == c
		}
		if !right {
			return c
		}
	}
}

func publicKey(t testing.TB) string {
	t.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(k.PublicKey().Bytes())
}

// person is somebody enrolled.
type person struct {
	name, secret, token, key string
	addr                     netip.Addr
	done                     Finished
}

func tokenOf(t testing.TB, i Invite) string {
	t.Helper()
	u, err := url.Parse(i.Link)
	if err != nil || u.Path != "/enroll" || len(u.Fragment) < 22 {
		t.Fatalf("link %q: %v", i.Link, err)
	}
	return u.Fragment
}

// enrolled adds a user and takes her through the whole enrolment.
func (w *world) enrolled(name string) person {
	w.t.Helper()
	ctx := w.t.Context()
	_, inv, err := w.AddUser(ctx, name, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	p := person{name: name, token: tokenOf(w.t, inv), key: publicKey(w.t)}
	e, err := w.EnrolBegin(ctx, p.token, "browser of "+name)
	if err != nil {
		w.t.Fatal(err)
	}
	p.secret = e.Secret
	p.done, err = w.EnrolFinish(ctx, FinishRequest{
		Token: p.token, Browser: "browser of " + name, Code: w.codeNow(p.secret), Device: "phone", PublicKey: p.key,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	p.addr = p.done.Addresses[0]
	return p
}

// wantCode fails unless err is an Error of this code.
func wantCode(t testing.TB, err error, code string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T), want one with code %q", err, err, code)
	}
	if e.Code != code {
		t.Fatalf("code %q (%s), want %q", e.Code, e.Message, code)
	}
	return e
}
