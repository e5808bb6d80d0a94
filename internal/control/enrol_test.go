package control

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"vpnd/internal/control/controltest"
	"vpnd/internal/dataplane"
	"vpnd/peers"
)

func (w *world) invited(name string) string {
	w.t.Helper()
	_, inv, err := w.AddUser(w.t.Context(), name, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return tokenOf(w.t, inv)
}

func TestEnrolAgainAfterABreak(t *testing.T) {
	w := newWorld(t)
	token := w.invited("alice")
	one, err := w.EnrolBegin(t.Context(), token, "one")
	if err != nil || one.Enrolled || one.User != "alice" || len(one.Secret) != 32 || !strings.Contains(one.OTPAuthURL, one.Secret) {
		t.Fatalf("begin: user %q, enrolled %v, %v", one.User, one.Enrolled, err)
	}
	if again, err := w.EnrolBegin(t.Context(), token, "one"); err != nil || again != one {
		t.Errorf("the same browser is shown another secret, or %v", err)
	}
	other, err := w.EnrolBegin(t.Context(), token, "two")
	if err != nil || other.Secret == one.Secret {
		t.Fatalf("another browser is shown the same secret, or %v", err)
	}
	req := FinishRequest{Token: token, Browser: "one", Code: w.codeNow(one.Secret), Device: "phone", PublicKey: publicKey(t)}
	wantCode(t, second(w.EnrolFinish(t.Context(), req)), KindOtherBrowser)
	req.Browser = ""
	wantCode(t, second(w.EnrolFinish(t.Context(), req)), KindOtherBrowser)
	wantCode(t, second(w.EnrolBegin(t.Context(), token, "")), KindInvalid)
	req.Browser, req.Code = "two", w.codeNow(other.Secret)
	if _, err := w.EnrolFinish(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if u := w.View().UserByName("alice"); u.Failures != 0 {
		t.Errorf("%d failures without a wrong code", u.Failures)
	}
}

func TestEnrolFinishRepeated(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	req := FinishRequest{Token: p.token, Code: "000000", Device: "phone", PublicKey: p.key}
	// The link and the public key are not enough: both may have been seen by others.
	for _, browser := range []string{"", "browser of bob"} {
		req.Browser = browser
		wantCode(t, second(w.EnrolFinish(t.Context(), req)), KindInvitationUsed)
	}
	req.Browser = "browser of alice"
	again, err := w.EnrolFinish(t.Context(), req)
	if err != nil || !again.Repeated || again.Config != p.done.Config || again.Device != p.done.Device {
		t.Errorf("repeated: %v, %v", again.Device, err)
	}
	if u := w.View().UserByName("alice"); u.Failures != 0 {
		t.Error("a repetition looked at the code")
	}
	req.PublicKey = publicKey(t)
	wantCode(t, second(w.EnrolFinish(t.Context(), req)), KindInvitationUsed)
	wantCode(t, second(w.EnrolBegin(t.Context(), p.token, "x")), KindInvitationUsed)
	if _, _, err := w.RotateDevice(t.Context(), "alice/phone", publicKey(t)); err != nil {
		t.Fatal(err)
	}
	req.PublicKey = p.key
	wantCode(t, second(w.EnrolFinish(t.Context(), req)), KindInvitationUsed)
}

func TestSecondDeviceUsesTheSameAuthenticator(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	inv, err := w.InviteUser(t.Context(), "alice", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	token := tokenOf(t, inv)
	e, err := w.EnrolBegin(t.Context(), token, "b")
	if err != nil || !e.Enrolled || e.Secret != "" || e.OTPAuthURL != "" {
		t.Fatalf("begin: enrolled %v, %v", e.Enrolled, err)
	}
	req := FinishRequest{Token: token, Browser: "b", Code: w.codeNow(p.secret), Device: "laptop", PublicKey: publicKey(t)}
	wantCode(t, second(w.EnrolFinish(t.Context(), req)), KindCodeUsed)
	w.nextPeriod()
	req.Code = w.codeNow(p.secret)
	for name, change := range map[string]func(*FinishRequest){
		KindKeyTaken: func(r *FinishRequest) { r.PublicKey = p.key },
		KindExists:   func(r *FinishRequest) { r.Device = "PHONE" },
		KindInvalid:  func(r *FinishRequest) { r.Device = "../x" },
	} {
		bad := req
		change(&bad)
		wantCode(t, second(w.EnrolFinish(t.Context(), bad)), name)
	}
	// None of these has spent the code.
	if _, err := w.EnrolFinish(t.Context(), req); err != nil {
		t.Fatal(err)
	}
}

// Of 100 who redeem an invitation at once exactly one gets a device.
func TestOneRedeemer(t *testing.T) {
	w := newWorld(t)
	token := w.invited("alice")
	e, err := w.EnrolBegin(t.Context(), token, "b")
	if err != nil {
		t.Fatal(err)
	}
	code := w.codeNow(e.Secret)
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		won int
	)
	for range 100 {
		key := publicKey(t)
		wg.Go(func() {
			_, err := w.EnrolFinish(t.Context(), FinishRequest{Token: token, Browser: "b", Code: code, Device: "phone", PublicKey: key})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if e := (*Error)(nil); !asError(err, &e) || e.Kind() != KindInvitationUsed {
				t.Errorf("a loser is told %v", err)
			}
		})
	}
	wg.Wait()
	if _, devices, _ := w.View().Counts(); won != 1 || devices != 1 {
		t.Errorf("%d redeemers won, there are %d devices", won, devices)
	}
}

func asError(err error, e **Error) bool {
	x, ok := err.(*Error)
	*e = x
	return ok
}

func TestInvitationEnds(t *testing.T) {
	w := newWorld(t)
	token := w.invited("alice")
	for _, bad := range []string{"", "x", token[:42], token + "A", strings.Repeat("A", 43), token[:42] + "\n"} {
		wantCode(t, second(w.EnrolBegin(t.Context(), bad, "b")), KindInvitationUnknown)
	}
	old := token
	inv, err := w.InviteUser(t.Context(), "alice", 0)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, second(w.EnrolBegin(t.Context(), old, "b")), KindInvitationUnknown)
	token = tokenOf(t, inv)
	if d := inv.Expires.Sub(w.now()).Round(time.Minute); d != 48*time.Hour {
		t.Errorf("valid for %v", d)
	}
	if _, _, err := w.SetUserEnabled(t.Context(), "alice", false); err != nil {
		t.Fatal(err)
	}
	wantCode(t, second(w.EnrolBegin(t.Context(), token, "b")), KindDisabled)
	if _, _, err := w.SetUserEnabled(t.Context(), "alice", true); err != nil {
		t.Fatal(err)
	}
	w.advance(48 * time.Hour)
	wantCode(t, second(w.EnrolBegin(t.Context(), token, "b")), KindInvitationExpired)
	wantCode(t, second(w.EnrolFinish(t.Context(), FinishRequest{Token: token})), KindInvitationExpired)
	for _, d := range []time.Duration{time.Second, -time.Hour, 1000 * 24 * time.Hour} {
		wantCode(t, second(w.InviteUser(t.Context(), "alice", d)), KindInvalid)
	}
}

func TestResetTOTP(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	w.nextPeriod()
	if _, err := w.SignIn(t.Context(), p.addr, w.codeNow(p.secret)); err != nil {
		t.Fatal(err)
	}
	inv, closed, err := w.ResetTOTP(t.Context(), "alice", 0)
	if err != nil || len(closed) != 1 || !closed[0].Done {
		t.Fatalf("reset: %v, %v", closed, err)
	}
	if st, _ := w.Session(t.Context(), p.addr); st.Active {
		t.Error("the session outlived the authenticator")
	}
	w.nextPeriod()
	wantCode(t, second(w.SignIn(t.Context(), p.addr, w.codeNow(p.secret))), KindNotEnrolled)
	e, err := w.EnrolBegin(t.Context(), tokenOf(t, inv), "b")
	if err != nil || e.Enrolled || e.Secret == p.secret {
		t.Fatalf("begin after the reset: enrolled %v, %v", e.Enrolled, err)
	}
}

func TestEnrolStatus(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	state := func(want string) {
		t.Helper()
		if got, err := w.EnrolStatus(t.Context(), p.token, p.key); err != nil || got != want {
			t.Errorf("state %q, %v; want %q", got, err, want)
		}
	}
	state("waiting")
	key, err := peers.ParseKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	w.gateway.Set(func(g *controltest.Gateway) {
		g.Peers = map[dataplane.Key]dataplane.PeerStats{dataplane.Key(key): {LastHandshake: w.now()}}
	})
	state("connected")
	w.nextPeriod()
	if _, err := w.SignIn(t.Context(), p.addr, w.codeNow(p.secret)); err != nil {
		t.Fatal(err)
	}
	state("active")
	bob := w.enrolled("bob")
	wantCode(t, second(w.EnrolStatus(t.Context(), p.token, bob.key)), KindNotFound)
	wantCode(t, second(w.EnrolStatus(t.Context(), strings.Repeat("A", 43), p.key)), KindInvitationUnknown)
}

// The secret of an invitation was shown to one browser, if it was shown at all.
func TestSameBrowser(t *testing.T) {
	shown := &peers.Invitation{Pending: []byte{1}, Browser: browserHash("hers")}
	used := &peers.Invitation{Browser: browserHash("hers")}
	for _, c := range []struct {
		inv     *peers.Invitation
		browser string
		want    bool
	}{{shown, "hers", true}, {shown, "another", false}, {used, "hers", false}, {&peers.Invitation{}, "", false}} {
		if got := sameBrowser(c.inv, c.browser); got != c.want {
			t.Errorf("%+v in %q: %v", c.inv, c.browser, got)
		}
	}
}

// answers decides everything by one answer.
type answers Answer

func (a answers) Decide(context.Context, Request) (Answer, error) { return Answer(a), nil }

// A device that is removed as soon as it was enrolled is no success.
func TestEnrolledDeviceIsGone(t *testing.T) {
	w := newWorld(t)
	s := New(Config{Store: w.store, Gateway: &controltest.Gateway{}, Sealer: w.sealer, Now: w.clock, Log: w.log.Logger(),
		Decider: answers{Index: w.View().Index(), Device: peers.ID{1}}})
	f, err := s.EnrolFinish(t.Context(), FinishRequest{Device: "phone"})
	wantCode(t, err, KindNotFound)
	if f.Config != "" {
		t.Errorf("it has a config: %+v", f)
	}
}

// meanwhile is a store in which something happens before the next command.
type meanwhile struct {
	Store
	first func()
}

func (m *meanwhile) Propose(ctx context.Context, c peers.Command) (uint64, peers.Result, error) {
	if f := m.first; f != nil {
		m.first = nil
		f()
	}
	return m.Store.Propose(ctx, c)
}

// A request that is repeated when its user has enrolled in another browser meanwhile is told so,
// and shows no secret.
func TestEnrolledMeanwhile(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	token := w.invited("alice")
	store := &meanwhile{Store: w.store}
	leader := NewLeader(Config{Store: store, Sealer: w.sealer, Now: w.clock, Log: w.log.Logger()})
	r := Request{ID: peers.ID{7}, Base: w.View().Index(), Ask: EnrolBegin{Token: token, Browser: "one"}}
	if a, err := leader.Decide(ctx, r); err != nil || a.Enrolment.Enrolled || a.Enrolment.Secret == "" {
		t.Fatalf("%+v, %v", a, err)
	}
	e, err := w.EnrolBegin(ctx, token, "two")
	if err != nil {
		t.Fatal(err)
	}
	store.first = func() {
		if _, err := w.EnrolFinish(ctx, FinishRequest{Token: token, Browser: "two", Code: w.codeNow(e.Secret), Device: "phone", PublicKey: publicKey(t)}); err != nil {
			t.Fatal(err)
		}
	}
	a, err := leader.Decide(ctx, r)
	if err != nil || !a.Enrolment.Enrolled || a.Enrolment.Secret != "" || store.first != nil {
		t.Errorf("%+v, %v", a.Enrolment, err)
	}
}
