package control

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"vpnd/internal/control/controltest"
	"vpnd/peers"
)

// The address of a device goes to somebody else's while a code waits to be checked: it is
// checked for neither, and nobody's failure.
func TestOwnerChangesWhileCodeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		w := newWorld(t, netip.MustParsePrefix("10.9.0.0/29")) // two devices fit
		alice, bob := w.enrolled("alice"), w.enrolled("bob")
		w.nextPeriod()
		unlock, err := w.leader.lockUser(ctx, w.View().UserByName("alice").ID)
		if err != nil {
			t.Fatal(err)
		}
		tried := w.leader.tried.Load()
		answer := make(chan error, 1)
		go func() { answer <- second(w.SignIn(ctx, alice.addr, w.codeNow(alice.secret))) }()
		synctest.Wait() // it waits for alice's lock
		if _, err := w.RemoveDevice(ctx, "alice/phone"); err != nil {
			t.Fatal(err)
		}
		d, err := w.AddDevice(ctx, "bob", "laptop", publicKey(t), nil)
		if err != nil || d.Device.Addrs[0] != alice.addr {
			t.Fatalf("bob's laptop has %v, %v; alice had %s", d.Device.Addrs, err, alice.addr)
		}
		unlock()
		wantCode(t, <-answer, KindUnavailable)
		if n := w.leader.tried.Load() - tried; n != 0 {
			t.Errorf("%d codes were compared", n)
		}
		for _, name := range []string{"alice", "bob"} {
			if u := w.View().UserByName(name); u.Failures != 0 {
				t.Errorf("%s has %d failures", name, u.Failures)
			}
		}
		if n := controltest.Proposed[peers.Login](w.store); n != 0 {
			t.Errorf("%d sign-ins", n)
		}
		// What bob types there is his own.
		if _, err := w.SignIn(ctx, alice.addr, w.codeNow(bob.secret)); err != nil {
			t.Errorf("bob on his laptop: %v", err)
		}
	})
}

// The device goes while a code waits to be checked: nobody is signed in, and it is said.
func TestDeviceGoesWhileCodeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		w := newWorld(t)
		alice := w.enrolled("alice")
		w.nextPeriod()
		unlock, err := w.leader.lockUser(ctx, w.View().UserByName("alice").ID)
		if err != nil {
			t.Fatal(err)
		}
		answer := make(chan error, 1)
		r := Request{ID: newID(), Base: w.View().Index(), Source: alice.addr, Ask: SignIn{Code: w.codeNow(alice.secret)}}
		go func() { answer <- second(w.leader.Decide(ctx, r)) }()
		synctest.Wait()
		if _, err := w.RemoveDevice(ctx, "alice/phone"); err != nil {
			t.Fatal(err)
		}
		unlock()
		wantCode(t, <-answer, KindNotFound)
		if n := controltest.Proposed[peers.Login](w.store); n != 0 {
			t.Errorf("%d sign-ins", n)
		}
		wantCode(t, w.SignOut(ctx, alice.addr), KindNotFound)
	})
}

// Who gives up while his code waits to be checked is not signed in, and no code is compared.
func TestGivenUpWhileCodeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice := w.enrolled("alice")
		w.nextPeriod()
		unlock, err := w.leader.lockUser(t.Context(), w.View().UserByName("alice").ID)
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		ctx, cancel := context.WithCancel(t.Context())
		answer, tried := make(chan error, 1), w.leader.tried.Load()
		r := Request{ID: newID(), Base: w.View().Index(), Source: alice.addr, Ask: SignIn{Code: w.codeNow(alice.secret)}}
		go func() { answer <- second(w.leader.Decide(ctx, r)) }()
		synctest.Wait()
		cancel()
		if err := <-answer; err == nil || w.leader.tried.Load() != tried {
			t.Errorf("%v, with %d codes compared", err, w.leader.tried.Load()-tried)
		}
	})
}

// A clock may be behind the state's time by clockSlack; a code is checked then, and not a
// nanosecond further back.
func TestClockJustBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.enrolled("alice")
		w.nextPeriod()
		w.advance(w.View().Time().Sub(w.leader.now()) - clockSlack)
		wantCode(t, second(w.SignIn(t.Context(), p.addr, w.wrongCode(p.secret))), KindCodeInvalid)
		w.advance(-time.Nanosecond)
		wantCode(t, second(w.SignIn(t.Context(), p.addr, w.wrongCode(p.secret))), KindClockBehind)
	})
}

// A session lives up to its end and not at it, to the nanosecond, for whoever asks: the
// page, WhoIs, the list, the next code.
func TestInstantOfExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		w := newWorld(t)
		p := w.enrolled("alice")
		w.nextPeriod()
		in, err := w.SignIn(ctx, p.addr, w.codeNow(p.secret))
		if err != nil {
			t.Fatal(err)
		}
		end := in.Expires
		started := w.View().Session(w.View().DeviceByAddr(p.addr).ID).Started
		for _, c := range []struct {
			at   time.Duration
			live bool
		}{{-time.Nanosecond, true}, {0, false}, {time.Nanosecond, false}} {
			w.advance(end.Add(c.at).Sub(w.now()))
			if st, err := w.Session(ctx, p.addr); err != nil || st.Active != c.live || st.Expires.IsZero() == c.live {
				t.Errorf("at the end %+d ns: the page says %+v, %v", c.at, st, err)
			}
			if who, err := w.WhoIs(ctx, p.addr); err != nil || who.Expires.IsZero() == c.live {
				t.Errorf("at the end %+d ns: WhoIs says %+v, %v", c.at, who, err)
			}
			v := w.View()
			if live := LiveSession(v, v.DeviceByAddr(p.addr).ID, w.Time(v)) != nil; live != c.live {
				t.Errorf("at the end %+d ns: live is %v", c.at, live)
			}
		}
		// At its very end a code opens another session, and before that it renews this one.
		for _, c := range []struct {
			at    time.Duration
			renew bool
		}{{0, false}, {-time.Nanosecond, true}} {
			end := w.View().Session(w.View().DeviceByAddr(p.addr).ID).Until
			w.advance(end.Add(c.at).Sub(w.now()))
			if _, err := w.SignIn(ctx, p.addr, w.codeNow(p.secret)); err != nil {
				t.Fatalf("at the end %+d ns: %v", c.at, err)
			}
			now := w.View().Session(w.View().DeviceByAddr(p.addr).ID)
			if renewed := now.Started.Equal(started); renewed != c.renew {
				t.Errorf("at the end %+d ns: renewed is %v", c.at, renewed)
			}
			started = now.Started
		}
	})
}

// A lock and an invitation end at their instant, too.
func TestInstantOfLockAndInvitation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		w := newWorld(t)
		p := w.enrolled("alice")
		w.nextPeriod()
		for range 5 {
			wantCode(t, second(w.SignIn(ctx, p.addr, w.wrongCode(p.secret))), KindCodeInvalid)
		}
		locked := w.View().UserByName("alice").Locked
		w.advance(locked.Add(-time.Nanosecond).Sub(w.now()))
		wantCode(t, second(w.SignIn(ctx, p.addr, w.codeNow(p.secret))), KindLocked)
		w.advance(time.Nanosecond)
		if _, err := w.SignIn(ctx, p.addr, w.codeNow(p.secret)); err != nil {
			t.Errorf("at the end of the lock: %v", err)
		}

		_, inv, err := w.AddUser(ctx, "bob", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		token := tokenOf(t, inv)
		w.advance(inv.Expires.Add(-time.Nanosecond).Sub(w.now()))
		if _, err := w.EnrolBegin(ctx, token, "b"); err != nil {
			t.Errorf("a nanosecond before an invitation's end: %v", err)
		}
		w.advance(time.Nanosecond)
		wantCode(t, second(w.EnrolBegin(ctx, token, "b")), KindInvitationExpired)
	})
}
