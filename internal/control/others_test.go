package control

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"vpnd/internal/control/controltest"
	"vpnd/peers"
)

// What other gateways got wrong, each as a test.

// Eight creators at once gave 39 addresses to several peers (wg-portal).
func TestParallelCreatorsShareNoAddress(t *testing.T) {
	w := newWorld(t)
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		seen = map[netip.Addr]string{}
	)
	for creator := range 8 {
		wg.Go(func() {
			user := fmt.Sprintf("user%d", creator)
			if _, _, err := w.AddUser(t.Context(), user, 0); err != nil {
				t.Error(err)
				return
			}
			for i := range 25 {
				d, err := w.AddDevice(t.Context(), user, fmt.Sprintf("d%d", i), publicKey(t), nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, a := range d.Device.Addrs {
					name := user + "/" + d.Device.Name
					if other, ok := seen[a]; ok {
						t.Errorf("%s is %s's and %s's", a, other, name)
					}
					seen[a] = name
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if want := 8 * 25 * len(w.gatewayNetwork()); len(seen) != want {
		t.Errorf("%d addresses, want %d", len(seen), want)
	}
}

func (w *world) gatewayNetwork() []netip.Prefix {
	set, _ := w.View().Settings()
	return set.Network
}

// A code was accepted twice, 33 s apart: in another step of the clock, from another device
// (wag).
func TestCodeIsNotTakenTwice(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	w.nextPeriod()
	ahead, err := totpCode(p.secret, totpStep(w.now())+1) // of a phone whose clock is ahead
	if err != nil {
		t.Fatal(err)
	}
	other, err := w.AddDevice(t.Context(), "alice", "laptop", publicKey(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.SignIn(t.Context(), p.addr, ahead); err != nil {
		t.Fatal(err)
	}
	w.advance(33 * time.Second)
	for _, a := range []netip.Addr{p.addr, other.Device.Addrs[0]} {
		wantCode(t, second(w.SignIn(t.Context(), a, ahead)), KindCodeUsed)
	}
	if w.View().Session(other.Device.ID) != nil {
		t.Error("her other device was signed in by a spent code")
	}
}

// Enrolling somebody else's public key moved her peer to the newcomer (wag).
func TestKeyOfSomebodyElse(t *testing.T) {
	w := newWorld(t)
	alice := w.enrolled("alice")
	token := w.invited("mallory")
	e, err := w.EnrolBegin(t.Context(), token, "hers")
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, second(w.EnrolFinish(t.Context(), FinishRequest{
		Token: token, Browser: "hers", Code: w.codeNow(e.Secret), Device: "phone", PublicKey: alice.key,
	})), KindKeyTaken)
	who, err := w.WhoIs(t.Context(), alice.addr)
	if err != nil || who.User != "alice" {
		t.Errorf("her address is %q's now (%v)", who.User, err)
	}
	if mallory := w.View().UserByName("mallory"); len(mallory.TOTP) != 0 {
		t.Error("the refused enrolment gave the newcomer an authenticator")
	}
}

// The VPN was torn down when quorum was lost (wag). Without a leader nobody new comes in,
// and who is in stays in.
func TestWithoutLeaderSessionsGoOn(t *testing.T) {
	w := newWorld(t)
	p, q := w.enrolled("alice"), w.enrolled("bob")
	w.nextPeriod()
	if _, err := w.SignIn(t.Context(), p.addr, w.codeNow(p.secret)); err != nil {
		t.Fatal(err)
	}
	w.store.Follower.Store(true)
	wantCode(t, second(w.SignIn(t.Context(), q.addr, w.codeNow(q.secret))), KindNoLeader)
	who, err := w.WhoIs(t.Context(), p.addr)
	if err != nil || !who.Expires.After(w.now()) {
		t.Errorf("without a leader her session is gone: %+v, %v", who, err)
	}
}

// A one-time link was guessable: CRC32 of an id and 1,000 values (wg-easy). Invitations of
// the same user at the same time have nothing in common, and State does not hold them.
func TestInvitationsCannotBeGuessed(t *testing.T) {
	w := newWorld(t)
	w.invited("alice")
	seen := map[byte]map[int]bool{}
	for range 64 {
		i, err := w.InviteUser(t.Context(), "alice", 0)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.RawURLEncoding.DecodeString(tokenOf(t, i))
		if err != nil || len(raw) < 16 {
			t.Fatalf("a token of %d bytes (%v): at least 128 random bits are promised", len(raw), err)
		}
		for at, b := range raw {
			if seen[b] == nil {
				seen[b] = map[int]bool{}
			}
			seen[b][at] = true
		}
		for _, cmd := range w.store.Log()[len(w.store.Log())-1:] {
			if bytes.Contains(cmd, []byte(tokenOf(t, i))) || bytes.Contains(cmd, raw) {
				t.Error("the log holds the token")
			}
		}
	}
	// 2,048 random bytes miss some value of a byte once in ten runs, and many never.
	if len(seen) < 240 {
		t.Errorf("the tokens' bytes have only %d values", len(seen))
	}
}

// Two first administrators by a race, and default secrets (Netmaker, NetBird, wg-portal):
// of many first starts one makes the cluster, and no two clusters share a secret.
func TestOneFirstStart(t *testing.T) {
	store := controltest.NewStore()
	sealer, err := NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first int
	)
	for range 8 {
		wg.Go(func() {
			made, err := Bootstrap(t.Context(), store, sealer, BootstrapConfig{Endpoint: "vpn.example.com:51820"})
			// Too old is one that was made before the cluster was.
			if err != nil && !errors.Is(err, peers.ErrExists) && !errors.Is(err, peers.ErrTooOld) {
				t.Error(err)
			}
			if made {
				mu.Lock()
				first++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if first != 1 {
		t.Errorf("%d of 8 first starts made the cluster", first)
	}
	one, _ := store.State().View().Settings()
	two, _ := newWorld(t).View().Settings()
	if one.PublicKey == two.PublicKey || one.Cluster == two.Cluster || bytes.Equal(one.CACert, two.CACert) {
		t.Error("two clusters share a secret")
	}
}

// Sessions ended only when idle (DefGuard); the page said expired while traffic still
// passed (Firezone): asking all the time prolongs nothing, and page and WhoIs end with the
// instant that the plane was given.
func TestSessionEndIsAbsolute(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	w.nextPeriod()
	in, err := w.SignIn(t.Context(), p.addr, w.codeNow(p.secret))
	if err != nil {
		t.Fatal(err)
	}
	end := w.View().Session(w.View().DeviceByAddr(p.addr).ID).Until
	if !in.Expires.Equal(end) {
		t.Errorf("the page says %v, the plane was given %v", in.Expires, end)
	}
	for w.now().Add(time.Hour).Before(end) {
		w.advance(time.Hour)
		s, err := w.Session(t.Context(), p.addr)
		who, err2 := w.WhoIs(t.Context(), p.addr)
		if err != nil || err2 != nil || !s.Active || !s.Expires.Equal(end) || !who.Expires.Equal(end) {
			t.Fatalf("at %v: %+v, %+v, %v, %v", w.now(), s, who, err, err2)
		}
	}
	w.advance(end.Sub(w.now()))
	s, err := w.Session(t.Context(), p.addr)
	who, err2 := w.WhoIs(t.Context(), p.addr)
	if err != nil || err2 != nil || s.Active || !who.Expires.IsZero() {
		t.Errorf("at its end: %+v, %+v, %v, %v", s, who, err, err2)
	}
}
