package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/peers"
)

// model is a plane that remembers what it was told, and can fail.
type model struct {
	mu       sync.Mutex
	devices  map[dataplane.Key]dataplane.Device
	sessions map[string]dataplane.Session
	rules    *rules.Ruleset
	sets     int
	derived  int   // changes of the rules that were derived
	fail     error // of everything
	refuse   int   // so many changes are refused
	changes  int   // that were told, also those refused
	devs     int   // how many devices these named
	services []dataplane.Service
	moves    int // how often the services were told by a change
}

func (m *model) Set(_ context.Context, s dataplane.State) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.sets++
	m.devices, m.sessions = map[dataplane.Key]dataplane.Device{}, map[string]dataplane.Session{}
	m.put(s.Devices, s.Sessions)
	m.rules, m.services = s.Rules, s.Services
	return nil
}

func (m *model) put(devices []dataplane.Device, sessions []dataplane.Session) {
	for _, d := range devices {
		m.devices[d.PublicKey] = d
	}
	for _, s := range sessions {
		m.sessions[s.Device] = s
	}
}

func (m *model) Update(_ context.Context, c dataplane.Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.changes++
	m.devs += len(c.RemoveDevices) + len(c.PutDevices) + len(c.EndSessions) + len(c.PutSessions)
	if m.refuse > 0 {
		m.refuse--
		return errors.New("no buffer space")
	}
	for _, d := range c.RemoveDevices {
		delete(m.devices, d.PublicKey)
		if s, ok := m.sessions[d.ID]; ok && !ends(c.EndSessions, s) {
			return fmt.Errorf("device %s was removed and its session was not ended", d.Name)
		}
	}
	for _, s := range c.EndSessions {
		delete(m.sessions, s.Device)
	}
	m.put(c.PutDevices, c.PutSessions)
	if c.Services != nil {
		m.services = c.Services
		m.moves++
	}
	if c.Rules != nil {
		if _, _, derived := c.Rules.Growth(m.rules, time.Now()); derived && c.Rules != m.rules {
			m.derived++
			if err := m.unmoved(c); err != nil {
				return err
			}
		}
		m.rules = c.Rules
	}
	return nil
}

// unmoved checks that derived rules say something else of devices alone that are put.
func (m *model) unmoved(c dataplane.Change) error {
	put := map[dataplane.Key]bool{}
	for _, d := range c.PutDevices {
		put[d.PublicKey] = true
	}
	for key, d := range m.devices {
		for _, a := range d.Addrs {
			role, zone, _ := m.rules.Device(a)
			newRole, newZone, _ := c.Rules.Device(a)
			if (role != newRole || zone != newZone) && !put[key] {
				return fmt.Errorf("the rules say something else of %s, and it is not put", d.Name)
			}
		}
	}
	return nil
}

func ends(list []dataplane.Session, s dataplane.Session) bool {
	for _, e := range list {
		if e.Device == s.Device {
			return true
		}
	}
	return false
}

func (m *model) Stats(context.Context, ...dataplane.Key) (dataplane.Stats, error) {
	return dataplane.Stats{}, nil
}
func (m *model) Permits(context.Context, dataplane.Flow) (bool, error) {
	return false, errors.New("no packets")
}
func (m *model) Listen(context.Context) (net.Listener, error) { return nil, errors.New("no network") }
func (m *model) Close() error                                 { return nil }

// bench is a state with a reconciler on a model.
type bench struct {
	t     *testing.T
	state *peers.State
	plane *model
	rec   *Reconciler
	index uint64
	start time.Time
	past  atomic.Int64 // since start, in ns
	n     byte
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, state: peers.New(), plane: &model{}, start: time.Now().UTC()}
	b.rec = b.reconciler(b.plane)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); b.rec.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	b.must(peers.Init{Policy: policy, Settings: peers.Settings{
		Cluster: b.id(), Created: b.now(), PrivateKey: []byte{1}, CAKey: []byte{1}, CACert: []byte{1}, PublicKey: b.key(),
		Network:  []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")},
		Endpoint: "192.0.2.1:51820", URL: "https://192.0.2.1:8443", Session: time.Hour,
	}})
	return b
}

const policy = `{"groups": {"group:a": ["u1", "u2"]}, "grants": [
  {"src": ["group:a"], "dst": ["app"], "ip": ["tcp:8080"]},
  {"src": ["autogroup:member"], "dst": ["10.1.0.0/16"], "ip": ["tcp:443"]}]}`

func (b *bench) reconciler(p dataplane.Plane) *Reconciler {
	return New(Config{
		State: b.state, Plane: p, Now: b.now, Log: slog.New(slog.NewTextHandler(b.t.Output(), nil)),
		Gateway:      func(peers.Settings) (dataplane.Gateway, error) { return dataplane.Gateway{}, nil },
		PresharedKey: func(d *peers.Device) (dataplane.Key, error) { return dataplane.Key{d.PresharedKey[0]}, nil },
	})
}

// now is the clock of the test and of the reconciler.
func (b *bench) now() time.Time { return b.start.Add(time.Duration(b.past.Load())) }

func (b *bench) id() (id peers.ID) {
	for i := range id {
		id[i] = byte(rand.Uint32())
	}
	return id
}

// key is a usable public key: any 32 bytes but a few are.
func (b *bench) key() (k peers.Key) {
	for i := range k {
		k[i] = byte(rand.Uint32())
	}
	k[31] &= 0x7f // as X25519 writes it
	return k
}

func (b *bench) apply(body peers.Body) peers.Result {
	b.t.Helper()
	r := b.state.View().Request(b.id())
	raw, err := peers.Encode(peers.Command{Request: r.ID, Base: r.Base, At: b.now(), Actor: "test", Body: body})
	if err != nil {
		b.t.Fatal(err)
	}
	b.index++
	res, err := b.state.Apply(b.index, raw)
	if err != nil {
		b.t.Fatal(err)
	}
	return res
}

func (b *bench) must(body peers.Body) peers.Result {
	b.t.Helper()
	res := b.apply(body)
	if res.Err != nil {
		b.t.Fatalf("%T: %v", body, res.Err)
	}
	return res
}

// user adds a user with a device and an authenticator.
func (b *bench) user(name string) (user, device peers.ID) {
	b.t.Helper()
	user, device = b.id(), b.id()
	inv := peers.NewInvitation{ID: b.id(), Hash: [32]byte(b.key()), Expires: b.now().Add(time.Hour)}
	b.must(peers.UserAdd{ID: user, Name: name, Invitation: &inv})
	browser := [32]byte(b.key())
	b.must(peers.EnrolBegin{Invitation: inv.ID, Browser: browser, Secret: []byte{1}})
	b.must(peers.EnrolFinish{Invitation: inv.ID, Browser: browser, Step: 1, Device: b.device(device, "phone")})
	return user, device
}

func (b *bench) device(id peers.ID, name string) peers.NewDevice {
	b.n++
	return peers.NewDevice{ID: id, Name: name, PublicKey: b.key(), PresharedKey: []byte{b.n}}
}

func (b *bench) wait() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	defer cancel()
	if err := b.rec.Wait(ctx, b.index); err != nil {
		b.t.Fatal(err)
	}
}

// check compares what the plane was told in pieces with what it would be told whole.
func (b *bench) check(after string) {
	b.t.Helper()
	b.wait()
	whole := &model{}
	r := b.reconciler(whole)
	view := b.state.View()
	settings, _ := view.Settings()
	if _, err := r.set(b.t.Context(), view, settings); err != nil {
		b.t.Fatal(err)
	}
	b.plane.mu.Lock()
	defer b.plane.mu.Unlock()
	if !reflect.DeepEqual(b.plane.devices, whole.devices) {
		b.t.Fatalf("after %s the plane has the devices\n%v, the state\n%v", after, b.plane.devices, whole.devices)
	}
	live := maps.Clone(b.plane.sessions)
	maps.DeleteFunc(live, func(_ string, s dataplane.Session) bool { return !s.Until.After(b.now()) })
	if !reflect.DeepEqual(live, whole.sessions) {
		b.t.Fatalf("after %s the plane has the sessions\n%v, the state\n%v", after, live, whole.sessions)
	}
	for d := range view.Devices() {
		for _, a := range d.Addrs {
			for _, p := range []rules.Packet{
				{Dst: settings.GatewayAddrs()[0], Proto: 6, DstPort: 8080},
				{Dst: netip.MustParseAddr("10.1.2.3"), Proto: 6, DstPort: 443},
				{Dst: netip.MustParseAddr("10.1.2.3"), Proto: 6, DstPort: 80},
			} {
				p.Src, p.SrcSession = a, rules.Session{Until: b.now().Add(time.Minute), Code: b.now()}
				if got, want := b.plane.rules.Verdict(p, b.now()), whole.rules.Verdict(p, b.now()); got.Allow != want.Allow {
					b.t.Fatalf("after %s %s: %+v in pieces, %+v whole, for %+v", after, d.Name, got, want, p)
				}
			}
		}
	}
}

// Whatever happens, the pieces add up to the whole.
func TestPiecesAddUp(t *testing.T) {
	b := newBench(t)
	type pair struct{ user, device peers.ID }
	var all []pair
	for i := range 4 {
		u, d := b.user(fmt.Sprintf("u%d", i))
		all = append(all, pair{u, d})
	}
	b.check("the start")
	step := int64(2)
	for i := range 400 {
		p := all[rand.IntN(len(all))]
		var body peers.Body
		switch rand.IntN(12) {
		case 0, 1, 2:
			body = peers.Login{Device: p.device, Step: step}
			step++
		case 3:
			body = peers.SessionEnd{Device: p.device}
		case 4:
			body = peers.DeviceEnable{Device: p.device, Enabled: rand.IntN(2) == 0}
		case 5:
			body = peers.UserEnable{User: p.user, Enabled: rand.IntN(3) > 0}
		case 6:
			body = peers.DeviceRotate{Device: p.device, PublicKey: b.key(), PresharedKey: []byte{byte(i)}}
		case 7:
			id := b.id()
			body = peers.DeviceAdd{User: p.user, Device: b.device(id, fmt.Sprintf("d%d", i))}
			all = append(all, pair{p.user, id})
		case 8:
			body = peers.DeviceRemove{Device: p.device}
		case 9:
			b.past.Add(int64(20 * time.Minute))
			body = peers.Expire{}
		case 10:
			v := b.state.View().Policy()
			text := policy
			if v.Version%2 == 1 {
				text = strings.Replace(policy, `"u2"`, `"u3"`, 1)
			}
			body = peers.PolicyApplyV1{Text: text, Base: v.Version}
		case 11:
			if rand.IntN(10) > 0 {
				continue
			}
			body = peers.UserRemove{User: p.user}
		}
		b.apply(body) // some are refused: that is part of it
		if rand.IntN(3) == 0 {
			b.check(fmt.Sprintf("step %d, %T", i, body))
		}
	}
	b.check("all")
	b.plane.mu.Lock()
	defer b.plane.mu.Unlock()
	if b.plane.derived < 20 {
		t.Errorf("the rules were derived %d times", b.plane.derived)
	}
	if b.plane.sets > 5 {
		t.Errorf("the plane was told everything %d times; small changes are to be told as such", b.plane.sets)
	}
}

// After a failure the plane is told everything again, and who waits learns why.
func TestFailureIsMadeGood(t *testing.T) {
	b := newBench(t)
	_, device := b.user("u1")
	b.check("the start")
	b.plane.mu.Lock()
	b.plane.fail = errors.New("no buffer space")
	b.plane.mu.Unlock()
	b.must(peers.Login{Device: device, Step: 2})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := b.rec.Wait(ctx, b.index); err == nil || !strings.Contains(err.Error(), "no buffer space") {
		t.Errorf("waiting for a plane that fails: %v", err)
	}
	b.plane.mu.Lock()
	b.plane.fail = nil
	b.plane.mu.Unlock()
	b.check("the failure")
}

// A change that fails is told once more as that change; only when it fails again the plane
// is told everything.
func TestFailedChangeIsRepeated(t *testing.T) {
	b := newBench(t)
	_, device := b.user("u1")
	for i := range 20 {
		b.user(fmt.Sprintf("many%d", i))
	}
	b.check("the start")
	told := func(refuse int, body peers.Body) (sets, changes, named int) {
		t.Helper()
		b.plane.mu.Lock()
		b.plane.refuse, b.plane.changes, b.plane.devs = refuse, 0, 0
		before := b.plane.sets
		b.plane.mu.Unlock()
		b.must(body)
		b.check("a failure")
		b.plane.mu.Lock()
		defer b.plane.mu.Unlock()
		return b.plane.sets - before, b.plane.changes, b.plane.devs
	}
	if sets, changes, named := told(1, peers.Login{Device: device, Step: 2}); sets != 0 || changes != 2 || named > 4 {
		t.Errorf("one failure: %d times everything, %d changes of %d", sets, changes, named)
	}
	if sets, changes, named := told(1, peers.SessionEnd{Device: device}); sets != 0 || changes != 2 || named > 4 {
		t.Errorf("one failure of a revocation: %d times everything, %d changes of %d", sets, changes, named)
	}
	if sets, changes, _ := told(2, peers.Login{Device: device, Step: 3}); sets != 1 || changes != 2 {
		t.Errorf("two failures: %d times everything, %d changes", sets, changes)
	}
}

// A preshared key is unsealed when it is a new one, and not at each sign-in.
func TestUnsealedOnce(t *testing.T) {
	b := newBench(t)
	_, device := b.user("u1")
	b.user("u2")
	b.wait()
	r := b.reconciler(&model{})
	var unseals atomic.Int32
	unseal := r.PresharedKey
	r.PresharedKey = func(d *peers.Device) (dataplane.Key, error) { unseals.Add(1); return unseal(d) }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	defer func() { cancel(); <-done }()
	after := func(what string, want int32, body peers.Body) {
		t.Helper()
		if body != nil {
			b.must(body)
		}
		if err := r.Wait(ctx, b.index); err != nil {
			t.Fatal(err)
		}
		if n := unseals.Swap(0); n != want {
			t.Errorf("%s: %d keys were unsealed, want %d", what, n, want)
		}
	}
	after("the start", 2, nil)
	after("a sign-in", 0, peers.Login{Device: device, Step: 2})
	after("a renewal", 0, peers.Login{Device: device, Step: 3})
	after("a sign-out", 0, peers.SessionEnd{Device: device})
	after("new keys", 1, peers.DeviceRotate{Device: device, PublicKey: b.key(), PresharedKey: []byte{99}})
	after("a sign-in with them", 0, peers.Login{Device: device, Step: 4})
}

// A stored policy that cannot be used any more grants nothing, and the gateway runs.
func TestUnusablePolicyGrantsNothing(t *testing.T) {
	b := newBench(t)
	b.user("u1")
	b.must(peers.PolicyApplyV1{Text: `{"grants": "of another version"}`, Base: 1})
	b.wait()
	for d := range b.state.View().Devices() {
		v := b.rec.Rules().Verdict(rules.Packet{Src: d.Addrs[0], Dst: netip.MustParseAddr("10.1.2.3"), Proto: 6, DstPort: 443,
			SrcSession: rules.Session{Until: b.now().Add(time.Hour), Code: b.now()}}, b.now())
		if v.Allow {
			t.Errorf("a policy that cannot be read allows: %+v", v)
		}
	}
}

// A preshared key that is damaged keeps its device out, and nobody else in.
func TestDamagedPresharedKey(t *testing.T) {
	b := newBench(t)
	_, good := b.user("u1")
	_, bad := b.user("u2")
	b.must(peers.Login{Device: good, Step: 2})
	b.wait()
	plane := &model{}
	r := b.reconciler(plane)
	damaged := b.state.View().Device(bad).PresharedKey[0]
	r.PresharedKey = func(d *peers.Device) (dataplane.Key, error) {
		if d.PresharedKey[0] == damaged {
			return dataplane.Key{}, errors.New("the sealing key does not open this value")
		}
		return dataplane.Key{d.PresharedKey[0]}, nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	defer func() { cancel(); <-done }()
	follow := func(sessions int) {
		t.Helper()
		if err := r.Wait(ctx, b.index); err != nil {
			t.Fatal(err)
		}
		plane.mu.Lock()
		defer plane.mu.Unlock()
		if len(plane.devices) != 1 || len(plane.sessions) != sessions {
			t.Errorf("%d devices and %d sessions, want 1 and %d", len(plane.devices), len(plane.sessions), sessions)
		}
	}
	follow(1)
	b.must(peers.Login{Device: bad, Step: 2})
	follow(1)
	b.must(peers.SessionEnd{}) // of all
	follow(0)
}
