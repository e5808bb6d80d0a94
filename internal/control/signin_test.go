package control

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vpnd/internal/control/controltest"
	"vpnd/internal/store"
	"vpnd/peers"
)

func TestEnrolAndSignIn(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	if p.done.Device != "alice/phone" || len(p.done.Addresses) != 2 || p.done.PortalURL != "http://10.77.0.1/" {
		t.Errorf("finished: device %q, addresses %v, portal %q", p.done.Device, p.done.Addresses, p.done.PortalURL)
	}
	if strings.Contains(p.done.Config, "PrivateKey") || !strings.Contains(p.done.Config, "PresharedKey") {
		t.Error("the config must have a preshared key and no private key")
	}
	st, err := w.Session(t.Context(), p.addr)
	if err != nil || st.Active || st.User != "alice" || st.Device != "phone" {
		t.Fatalf("before sign-in: %+v, %v", st, err)
	}
	// The code that enrolment spent opens nothing.
	e := wantCode(t, second(w.SignIn(t.Context(), p.addr, w.codeNow(p.secret))), KindCodeUsed)
	if e.RetryAfter < time.Second || e.RetryAfter > totpPeriod {
		t.Errorf("the next code in %v", e.RetryAfter)
	}
	w.nextPeriod()
	st, err = w.SignIn(t.Context(), p.addr, w.codeNow(p.secret))
	if err != nil || !st.Active {
		t.Fatalf("sign-in: %+v, %v", st, err)
	}
	if d := st.Expires.Sub(w.now()); d < 11*time.Hour+59*time.Minute || d > 12*time.Hour {
		t.Errorf("the session lasts %v", d)
	}
	if got := w.gateway.Applied(); got != w.View().Index() {
		t.Errorf("answered at index %d before the plane had %d", got, w.View().Index())
	}
	// The same code again, also over IPv6, is used; and that is no failure.
	for range 10 {
		wantCode(t, second(w.SignIn(t.Context(), p.done.Addresses[1], w.codeNow(p.secret))), KindCodeUsed)
	}
	if u := w.View().UserByName("alice"); u.Failures != 0 {
		t.Errorf("a used code counted as %d failures", u.Failures)
	}
	who, err := w.WhoIs(t.Context(), p.addr)
	if err != nil || who.User != "alice" || who.Device != "phone" || !who.Expires.Equal(st.Expires) {
		t.Errorf("WhoIs = %+v, %v", who, err)
	}
	if err := w.SignOut(t.Context(), p.addr); err != nil {
		t.Fatal(err)
	}
	if st, _ := w.Session(t.Context(), p.addr); st.Active {
		t.Error("active after the sign-out")
	}
	if who, _ := w.WhoIs(t.Context(), p.addr); !who.Expires.IsZero() {
		t.Error("WhoIs names a session after the sign-out")
	}
}

func second[T any](_ T, err error) error { return err }

func TestCodeOfAnotherUser(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.enrolled("alice"), w.enrolled("bob")
	w.nextPeriod()
	wantCode(t, second(w.SignIn(t.Context(), bob.addr, w.codeNow(alice.secret))), KindCodeInvalid)
	wantCode(t, second(w.SignIn(t.Context(), netip.MustParseAddr("10.77.3.3"), w.codeNow(alice.secret))), KindNotFound)
	if _, err := w.SignIn(t.Context(), alice.addr, w.codeNow(alice.secret)); err != nil {
		t.Error(err)
	}
}

func TestOnlySixDigits(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	w.nextPeriod()
	code := w.codeNow(p.secret)
	arabic := strings.Map(func(r rune) rune { return r - '0' + '\u0660' }, code)
	for _, bad := range []string{"", " ", code + "\n", " " + code, code[:5], code + "0", "\u00a0" + code, code[:3] + " " + code[3:], "+" + code[1:], "0x" + code[2:], arabic, "\u2003" + code} {
		wantCode(t, second(w.SignIn(t.Context(), p.addr, bad)), KindCodeInvalid)
	}
	if u := w.View().UserByName("alice"); u.Failures != 0 {
		t.Errorf("what cannot be a code counted as %d failures", u.Failures)
	}
}

// Of 1,000 wrong codes at once exactly five are evaluated; then right and wrong codes
// get the same answer, until the lock ends.
func TestThousandWrongCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.enrolled("alice")
		w.nextPeriod()
		bad := w.wrongCode(p.secret)
		w.store.Slow.Store(int64(time.Millisecond)) // all have come before the first is counted
		before := w.leader.tried.Load()
		var (
			wg sync.WaitGroup
			mu sync.Mutex
			n  = map[string]int{}
		)
		for range 1000 {
			wg.Go(func() {
				_, err := w.SignIn(t.Context(), p.addr, bad)
				var e *Error
				if !errors.As(err, &e) {
					t.Errorf("wrong code: %v", err)
					return
				}
				mu.Lock()
				n[e.Kind()]++
				mu.Unlock()
			})
		}
		wg.Wait()
		if n[KindCodeInvalid] != 5 || n[KindLocked] != 995 || controltest.Proposed[peers.Failure](w.store) != 5 {
			t.Fatalf("answers %v, %d failures proposed; want 5 evaluated and 995 locked", n, controltest.Proposed[peers.Failure](w.store))
		}
		if n := w.leader.tried.Load() - before; n != 5 {
			t.Errorf("%d codes were evaluated, want 5", n)
		}
		if len(w.leader.users.held) != 0 {
			t.Errorf("%d locks are left over", len(w.leader.users.held))
		}
		right := wantCode(t, second(w.SignIn(t.Context(), p.addr, w.codeNow(p.secret))), KindLocked)
		wrong := wantCode(t, second(w.SignIn(t.Context(), p.addr, bad)), KindLocked)
		junk := wantCode(t, second(w.SignIn(t.Context(), p.addr, "x")), KindLocked)
		if w.leader.tried.Load()-before != 5 {
			t.Error("a code was evaluated while locked")
		}
		if !reflect.DeepEqual(right, wrong) || !reflect.DeepEqual(right, junk) {
			t.Errorf("while locked, a right code is told from a wrong one: %+v, %+v, %+v", right, wrong, junk)
		}
		if d := right.RetryAfter; d <= 14*time.Minute || d > 15*time.Minute {
			t.Errorf("locked for %v", d)
		}
		time.Sleep(right.RetryAfter)
		w.nextPeriod()
		if _, err := w.SignIn(t.Context(), p.addr, w.codeNow(p.secret)); err != nil {
			t.Errorf("after the lock: %v", err)
		}
	})
}

// Locks double up to a day; an administrator can lift them.
func TestLocksDouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.enrolled("alice")
		want := 15 * time.Minute
		for range 9 {
			w.nextPeriod()
			bad := w.wrongCode(p.secret)
			for range 5 {
				wantCode(t, second(w.SignIn(t.Context(), p.addr, bad)), KindCodeInvalid)
			}
			e := wantCode(t, second(w.SignIn(t.Context(), p.addr, bad)), KindLocked)
			if e.RetryAfter != want {
				t.Fatalf("locked for %v, want %v", e.RetryAfter, want)
			}
			time.Sleep(want)
			want = min(2*want, 24*time.Hour)
		}
		bad := w.wrongCode(p.secret)
		for range 5 {
			wantCode(t, second(w.SignIn(t.Context(), p.addr, bad)), KindCodeInvalid)
		}
		if _, err := w.UnlockUser(t.Context(), "ALICE"); err != nil {
			t.Fatal(err)
		}
		w.nextPeriod()
		if _, err := w.SignIn(t.Context(), p.addr, w.codeNow(p.secret)); err != nil {
			t.Errorf("after the lock was lifted: %v", err)
		}
	})
}

// Codes at enrolment are counted with the others, and a lock holds there too.
func TestEnrolmentCountsCodes(t *testing.T) {
	w := newWorld(t)
	_, inv, err := w.AddUser(t.Context(), "alice", 0)
	if err != nil {
		t.Fatal(err)
	}
	token := tokenOf(t, inv)
	e, err := w.EnrolBegin(t.Context(), token, "b")
	if err != nil {
		t.Fatal(err)
	}
	req := FinishRequest{Token: token, Browser: "b", Code: w.wrongCode(e.Secret), Device: "phone", PublicKey: publicKey(t)}
	for range 5 {
		wantCode(t, second(w.EnrolFinish(t.Context(), req)), KindCodeInvalid)
	}
	req.Code = w.codeNow(e.Secret)
	wantCode(t, second(w.EnrolFinish(t.Context(), req)), KindLocked)
	// A new invitation is no way around it.
	if inv, err = w.InviteUser(t.Context(), "alice", 0); err != nil {
		t.Fatal(err)
	}
	req.Token = tokenOf(t, inv)
	if e, err = w.EnrolBegin(t.Context(), req.Token, "b"); err != nil {
		t.Fatal(err)
	}
	req.Code = w.codeNow(e.Secret)
	wantCode(t, second(w.EnrolFinish(t.Context(), req)), KindLocked)
}

// A caller who goes away does not keep a wrong code from being counted.
func TestGivenUpCodeCounts(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	w.nextPeriod()
	ctx, cancel := context.WithCancel(t.Context())
	v := w.View()
	u := v.UserByName("alice")
	cancel()
	if _, err := (&decision{Leader: w.leader, id: newID(), base: v.Index()}).checkCode(ctx, v, u, u.TOTP, w.wrongCode(p.secret)); err == nil {
		t.Fatal("a wrong code passed")
	}
	if u := w.View().UserByName("alice"); u.Failures != 1 {
		t.Errorf("%d failures counted, want 1", u.Failures)
	}
}

// When nothing can be committed, right and wrong codes get the same answer.
func TestNothingIsLearntWithoutALog(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	w.nextPeriod()
	for _, err := range []error{store.ErrNoLeader, store.ErrUnknown, errors.New("disk")} {
		w.store.SetFail(err)
		var a, b *Error
		if !errors.As(second(w.SignIn(t.Context(), p.addr, w.codeNow(p.secret))), &a) ||
			!errors.As(second(w.SignIn(t.Context(), p.addr, w.wrongCode(p.secret))), &b) {
			t.Fatal("no Error")
		}
		if a.Error() != b.Error() || a.RetryAfter != b.RetryAfter {
			t.Errorf("%v: right %+v, wrong %+v", err, a, b)
		}
	}
	w.store.SetFail(nil)
	w.store.Follower.Store(true)
	wantCode(t, second(w.SignIn(t.Context(), p.addr, w.codeNow(p.secret))), KindNoLeader)
}

func TestClockBehind(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	w.nextPeriod()
	if _, err := w.SignIn(t.Context(), p.addr, w.codeNow(p.secret)); err != nil {
		t.Fatal(err)
	}
	behind, state := w.now().Add(-time.Hour), w.View().Time()
	w.advance(-time.Hour)
	e := wantCode(t, second(w.SignIn(t.Context(), p.addr, w.codeNow(p.secret))), KindClockBehind)
	for _, at := range []time.Time{behind, state} {
		if !strings.Contains(e.Error(), at.UTC().Format("15:04")) {
			t.Errorf("%v does not name %s", e, at)
		}
	}
	if st, _ := w.Session(t.Context(), p.addr); !st.Active {
		t.Error("a clock that is behind ended a session")
	}
	at, n, err := w.ResetTime(t.Context())
	if err != nil || n != 1 || at.After(w.now()) {
		t.Fatalf("ResetTime = %v, %d, %v", at, n, err)
	}
	w.advance(2 * time.Hour) // past every step that was spent
	if _, err := w.SignIn(t.Context(), p.addr, w.codeNow(p.secret)); err != nil {
		t.Errorf("after the reset: %v", err)
	}
}

// A sign-in is answered when the plane is open, and not otherwise.
func TestSignInWaitsForThePlane(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	w.nextPeriod()
	w.gateway.Set(func(g *controltest.Gateway) { g.Fail = errors.New("nft is busy") })
	e := wantCode(t, second(w.SignIn(t.Context(), p.addr, w.codeNow(p.secret))), KindUnavailable)
	if strings.Contains(e.Error(), "nft") {
		t.Errorf("a person is told of nft: %v", e)
	}
	if err := w.SignOut(t.Context(), p.addr); err == nil {
		t.Error("signed out although the plane did not close")
	}
}

func TestDisabledIsOut(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	w.nextPeriod()
	if _, _, err := w.SetDeviceEnabled(t.Context(), "alice/phone", false); err != nil {
		t.Fatal(err)
	}
	wantCode(t, second(w.SignIn(t.Context(), p.addr, w.codeNow(p.secret))), KindDisabled)
	wantCode(t, second(w.WhoIs(t.Context(), p.addr)), KindNotFound)
	if _, _, err := w.SetDeviceEnabled(t.Context(), "alice/phone", true); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.SetUserEnabled(t.Context(), "alice", false); err != nil {
		t.Fatal(err)
	}
	wantCode(t, second(w.SignIn(t.Context(), p.addr, w.codeNow(p.secret))), KindDisabled)
	wantCode(t, second(w.WhoIs(t.Context(), p.addr)), KindNotFound)
}
