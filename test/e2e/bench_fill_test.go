package e2e

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vpnd/internal/control"
	"vpnd/internal/store"
	"vpnd/peers"
)

// The benchmark's tunnel has room for more devices than wireguard-go takes peers.
const (
	benchNetwork = "10.64.0.0/12"
	benchGateway = "10.64.0.1"
)

// filler writes people into the data folder of a vpnd that does not run: the commands
// are those that their enrolment proposes, and go through Raft and its log.
type filler struct {
	t      testing.TB
	store  *store.Store
	sealer *control.Sealer
	ids    []peers.ID // of the devices
}

// fill makes a data folder with n people of one device each, who enrolled two days ago:
// their invitations have ended and are removed.
func fill(t testing.TB, dir, sealingKey, policy string, n int) *filler {
	t.Helper()
	f := openFiller(t, dir, sealingKey)
	past := time.Now().UTC().Round(0).Add(-48 * time.Hour)
	_, err := control.Bootstrap(t.Context(), f.store, f.sealer, control.BootstrapConfig{
		Endpoint: gwPublic4 + ":51820",
		Network:  []netip.Prefix{netip.MustParsePrefix(benchNetwork), netip.MustParsePrefix("fd77::/64")},
		Routes:   []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
		Now:      func() time.Time { return past },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.propose(past, peers.PolicyApplyV1{Text: policy, Base: 1})
	f.ids = make([]peers.ID, n)
	f.each(n, func(i int) { f.ids[i] = f.enrol(past, fmt.Sprintf("u%d", i)) })
	for f.propose(past.Add(24*time.Hour), peers.Expire{}).Count > 0 {
	}
	return f
}

func openFiller(t testing.TB, dir, sealingKey string) *filler {
	t.Helper()
	key, err := control.LoadSealingKey(sealingKey, false)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := control.NewSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Config{Dir: dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &filler{t: t, store: s, sealer: sealer}
}

// signInAll gives every device a session from now on.
func (f *filler) signInAll() {
	now := time.Now().UTC().Round(0)
	f.each(len(f.ids), func(i int) { f.propose(now, peers.Login{Device: f.ids[i], Step: now.Unix() / 30}) })
}

func (f *filler) close() {
	f.t.Helper()
	if err := errors.Join(f.store.Snapshot(), f.store.Close()); err != nil {
		f.t.Fatal(err)
	}
}

// each calls do for 0 to n-1, from as many callers as share an fsync well.
func (f *filler) each(n int, do func(int)) {
	f.t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 128 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && !f.t.Failed(); i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wg.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
}

func (f *filler) propose(at time.Time, b peers.Body) peers.Result {
	_, r, err := f.store.Propose(f.t.Context(), peers.Command{At: at, Actor: "bench", Body: b})
	if err = errors.Join(err, r.Err); err != nil {
		f.t.Errorf("%T: %v", b, err)
	}
	return r
}

// enrol adds one person with an authenticator and a device, and gives the device's id.
func (f *filler) enrol(at time.Time, name string) peers.ID {
	user, device, inv := random[peers.ID](), random[peers.ID](), random[peers.ID]()
	seal := func(owner peers.ID, field, secret string) peers.Sealed {
		s, err := f.sealer.Seal(owner, field, []byte(secret))
		if err != nil {
			f.t.Error(err)
		}
		return s
	}
	secret, psk, browser := random[[20]byte](), random[[32]byte](), random[[32]byte]()
	f.propose(at, peers.UserAdd{ID: user, Name: name, Invitation: &peers.NewInvitation{ID: inv, Hash: random[[32]byte](), Expires: at.Add(time.Hour)}})
	f.propose(at, peers.EnrolBegin{Invitation: inv, Browser: browser,
		Secret: seal(user, "totp.secret", strings.TrimRight(base32.StdEncoding.EncodeToString(secret[:]), "="))})
	public := random[peers.Key]()
	public[31] &= 0x7f // as X25519 writes it
	f.propose(at, peers.EnrolFinish{Invitation: inv, Browser: browser, Step: at.Unix() / 30, Device: peers.NewDevice{
		ID: device, Name: "phone", PublicKey: public, PresharedKey: seal(device, "device.preshared-key", string(psk[:]))}})
	return device
}

// random makes random bytes of the type that is wanted.
func random[T ~[16]byte | ~[20]byte | ~[32]byte]() (v T) {
	b := make([]byte, len(v))
	rand.Read(b)
	for i := range b {
		v[i] = b[i]
	}
	return v
}
