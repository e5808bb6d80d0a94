package control

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"vpnd/internal/control/controltest"
	"vpnd/peers"
)

// again decides a request twice, as after an answer that was lost, and returns the first
// answer. The second must be the same, and must not have changed anything.
func (w *world) again(r Request) (Answer, error) {
	w.t.Helper()
	made := w.View().Request(newID())
	r.ID, r.Base = made.ID, made.Base
	if r.Actor == "" {
		r.Actor = "uid 0"
	}
	first, err := w.leader.Decide(w.t.Context(), r)
	before, audited := w.State(), len(w.View().Audit(0, 10_000))
	second, err2 := w.leader.Decide(w.t.Context(), r)
	if (err == nil) != (err2 == nil) || err != nil && err.(*Error).Code != err2.(*Error).Code {
		w.t.Errorf("%T: %v, and again %v", r.Ask, err, err2)
	}
	second.Index = first.Index // where the repeat was answered without a command
	if err == nil && !reflect.DeepEqual(first, second) {
		w.t.Errorf("%T: %+v, and again %+v", r.Ask, first, second)
	}
	if now := w.State(); !reflect.DeepEqual(now, before) || len(w.View().Audit(0, 10_000)) != audited {
		w.t.Errorf("%T: the repeat changed %+v into %+v", r.Ask, before, now)
	}
	return first, err
}

// State is what a second time would show in.
func (w *world) State() (s struct {
	Users, Devices, Sessions int
	Steps, Failures          map[string]int64
	Policy                   uint64
}) {
	v := w.View()
	s.Users, s.Devices, s.Sessions = v.Counts()
	s.Steps, s.Failures, s.Policy = map[string]int64{}, map[string]int64{}, v.Policy().Version
	for u := range v.Users() {
		s.Steps[u.Name], s.Failures[u.Name] = u.LastStep, int64(u.Failures)
	}
	return s
}

// A request that is sent again, because its answer was lost, is answered as the first time
// and carried out once: an accepted code is accepted, a wrong one counted once.
func TestRequestsSentAgain(t *testing.T) {
	w := newWorld(t)
	invitation := func() (string, Invitation) {
		token, inv, err := newInvitation(time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return token, inv
	}
	must := func(a Answer, err error) Answer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	token, inv := invitation()
	must(w.again(Request{Ask: AddUser{"alice", inv}}))
	secret := must(w.again(Request{Ask: EnrolBegin{token, "b"}})).Enrolment.Secret
	finish := FinishRequest{Token: token, Browser: "b", Code: w.wrongCode(secret), Device: "phone", PublicKey: publicKey(t)}
	_, err := w.again(Request{Ask: finish})
	wantCode(t, err, KindCodeInvalid)
	finish.Code = w.codeNow(secret)
	phone := must(w.again(Request{Ask: finish})).Device
	from := w.View().Device(phone).Addrs[0]

	w.nextPeriod()
	tried := w.leader.tried.Load()
	_, err = w.again(Request{Source: from, Ask: SignIn{w.wrongCode(secret)}})
	wantCode(t, err, KindCodeInvalid)
	code := w.codeNow(secret)
	must(w.again(Request{Source: from, Ask: SignIn{code}}))
	if n := w.leader.tried.Load() - tried; n != 2 {
		t.Errorf("%d codes were compared, 2 were given", n)
	}
	// Under an id of its own it is another request.
	_, err = w.again(Request{Source: from, Ask: SignIn{code}})
	wantCode(t, err, KindCodeUsed)
	for range 4 { // the fifth locks, and is answered as that both times
		w.again(Request{Source: from, Ask: SignIn{w.wrongCode(secret)}})
	}
	must(w.again(Request{Source: from, Ask: SignOut{}}))
	must(w.again(Request{Ask: UnlockUser{"alice"}}))
	must(w.again(Request{Ask: EndSessions{}}))

	must(w.again(Request{Ask: AddDevice{User: "alice", Name: "laptop", PublicKey: publicKey(t), Tags: []string{"tag:a"}}}))
	must(w.again(Request{Ask: EnableDevice{"alice/laptop", false}}))
	must(w.again(Request{Ask: RotateDevice{"alice/laptop", publicKey(t)}}))
	must(w.again(Request{Ask: RemoveDevice{"alice/laptop"}}))
	_, inv = invitation()
	must(w.again(Request{Ask: InviteUser{"alice", inv}}))
	must(w.again(Request{Ask: EnableUser{"alice", false}}))
	_, inv = invitation()
	must(w.again(Request{Ask: ResetTOTP{"alice", inv}}))

	base := w.View().Policy().Version
	must(w.again(Request{Ask: ApplyPolicy{Text: otherPolicy, Base: base, Confirm: time.Minute}}))
	must(w.again(Request{Ask: ConfirmPolicy{}}))
	must(w.again(Request{Ask: ApplyPolicy{Text: `{"grants": []}`, Base: base + 1, Confirm: time.Minute}}))
	must(w.again(Request{Ask: RevertPolicy{}}))
	routes := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	must(w.again(Request{Ask: SetSettings{peers.Configure{Routes: &routes}}}))
	must(w.again(Request{Ask: NoteDrift{What: "peer", Was: "removed", Lost: 2}}))
	must(w.again(Request{Ask: Expire{}}))
	must(w.again(Request{Ask: RemoveUser{"alice"}}))
	must(w.again(Request{Ask: ResetTime{}}))
	if n := controltest.Proposed[peers.Login](w.store); n != 1 {
		t.Errorf("%d times signed in", n)
	}
}
