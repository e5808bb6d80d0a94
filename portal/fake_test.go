package portal

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/control"
	"vpnd/peers"
	"vpnd/peers/conf"
)

// The fake's fixed values.
const (
	fakeToken  = "Zm9yIHRlc3RzIG9ubHksIG5vdCBhIHJlYWwgdG9rZW4"
	fakeCode   = "424242"
	fakeSecret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
)

var (
	tunnel4 = netip.MustParseAddr("10.77.0.1")
	tunnel6 = netip.MustParseAddr("fd42:7::1")
	phone4  = netip.MustParseAddr("10.77.0.2")
	phone6  = netip.MustParseAddr("fd42:7::2")
)

// fakeService behaves as control does, seen from the portal, for one user and one
// invitation; the real one has its own tests.
type fakeService struct {
	mu       sync.Mutex
	enrolled bool // alice has an authenticator
	browser  string
	used     string // public key that the invitation was used for
	state    string // what status answers
	codes    map[string]bool
	active   bool
	expires  time.Time
	reaches  []rules.Reach
	policy   string
	fail     error // answered by everything, if not nil
	finishes []control.FinishRequest
	froms    []netip.Addr
	lose     int // answers of EnrolFinish to lose after doing the work
}

func newFake() *fakeService {
	return &fakeService{state: "waiting", codes: map[string]bool{}, reaches: closedReaches()}
}

func (f *fakeService) EnrolBegin(_ context.Context, token, browser string) (control.Enrolment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return control.Enrolment{}, f.fail
	}
	if token != fakeToken {
		return control.Enrolment{}, control.Refuse("invitation_unknown")
	}
	if f.used != "" {
		return control.Enrolment{}, control.Refuse("invitation_spent")
	}
	f.browser = browser
	e := control.Enrolment{User: "alice", Enrolled: f.enrolled, Expires: time.Now().Add(47 * time.Hour)}
	if !f.enrolled {
		e.Secret = fakeSecret
		e.OTPAuthURL = "otpauth://totp/vpnd:alice?secret=" + fakeSecret + "&issuer=vpnd&algorithm=SHA1&digits=6&period=30"
	}
	return e, nil
}

func (f *fakeService) EnrolFinish(_ context.Context, r control.FinishRequest) (control.Finished, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.finishes = append(f.finishes, r)
	if f.fail != nil {
		return control.Finished{}, f.fail
	}
	if r.Token != fakeToken {
		return control.Finished{}, control.Refuse("invitation_unknown")
	}
	if f.used != "" && f.used != r.PublicKey {
		return control.Finished{}, control.Refuse("invitation_spent")
	}
	if f.used == "" {
		if !f.enrolled && r.Browser != f.browser {
			return control.Finished{}, control.Refuse("browser_changed")
		}
		if _, err := peers.ParseKey(r.PublicKey); err != nil {
			return control.Finished{}, control.Refuse("key_not_base64")
		}
		if peers.CheckDeviceName(r.Device) != nil {
			return control.Finished{}, control.Refuse("device_name_invalid", r.Device)
		}
		if err := f.checkCode(r.Code); err != nil {
			return control.Finished{}, err
		}
		f.used = r.PublicKey
	}
	if f.lose > 0 {
		f.lose--
		return control.Finished{}, control.Refuse("unconfirmed")
	}
	return control.Finished{
		Device: "alice/" + r.Device, Addresses: []netip.Addr{phone4, phone6}, PortalURL: "http://10.77.0.1/",
		Config: fakeConfig().Text(""),
	}, nil
}

// fakeConfig is a dual-stack config of the usual size.
func fakeConfig() conf.Config {
	gateway, err := peers.ParseKey("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")
	if err != nil {
		panic(err)
	}
	c := conf.Config{
		Device: peers.Device{Addrs: []netip.Addr{phone4, phone6}, Routes: []netip.Prefix{netip.MustParsePrefix("192.168.40.0/24")}},
		Settings: peers.Settings{PublicKey: gateway, Endpoint: "vpn.example.org:51820",
			Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd42:7::/64")}},
	}
	copy(c.PSK[:], "secret preshared key for tests!!")
	return c
}

func (f *fakeService) checkCode(code string) error {
	switch {
	case code == "999999":
		e := control.Refuse("user_locked", "alice", time.Now().Add(14*time.Minute+30*time.Second))
		e.RetryAfter = 14*time.Minute + 30*time.Second
		return e
	case f.codes[code]:
		e := control.Refuse("code_spent", 17*time.Second)
		e.RetryAfter = 17 * time.Second
		return e
	case code != fakeCode:
		return control.Refuse("code_wrong")
	}
	f.codes[code] = true
	return nil
}

func (f *fakeService) EnrolStatus(_ context.Context, token, key string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return "", f.fail
	}
	if token != fakeToken || key != f.used || key == "" {
		return "", control.Refuse("enrolment_without_device")
	}
	return f.state, nil
}

func (f *fakeService) status() control.SessionStatus {
	s := control.SessionStatus{User: "alice", Device: "alice/phone", Active: f.active, Reaches: f.reaches}
	if f.policy != "" {
		s.Policy = language.ParseStored([]byte(f.policy))
	}
	if f.active {
		s.Expires = f.expires
	}
	return s
}

func (f *fakeService) known(from netip.Addr) error {
	f.froms = append(f.froms, from)
	if f.fail != nil {
		return f.fail
	}
	if from != phone4 && from != phone6 {
		return control.Refuse("address_of_nobody", from)
	}
	return nil
}

func (f *fakeService) Session(_ context.Context, from netip.Addr) (control.SessionStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.known(from); err != nil {
		return control.SessionStatus{}, err
	}
	return f.status(), nil
}

func (f *fakeService) SignIn(_ context.Context, from netip.Addr, code string) (control.SessionStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.known(from); err != nil {
		return control.SessionStatus{}, err
	}
	if err := f.checkCode(code); err != nil {
		return control.SessionStatus{}, err
	}
	f.active, f.expires, f.reaches = true, time.Now().Add(12*time.Hour), openReaches()
	return f.status(), nil
}

func (f *fakeService) SignOut(_ context.Context, from netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.known(from); err != nil {
		return err
	}
	f.active, f.reaches = false, closedReaches()
	return nil
}

// set changes the fake while a browser looks at it.
func (f *fakeService) set(change func(*fakeService)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func reach(name, prefix string, proto uint8, first, last uint16, reason rules.Reason, until time.Time) rules.Reach {
	return rules.Reach{Name: name, Prefix: netip.MustParsePrefix(prefix), Proto: proto, First: first, Last: last,
		Verdict: rules.Verdict{Allow: reason == rules.Allowed, Reason: reason, Until: until}}
}

func openReaches() []rules.Reach {
	end := time.Now().Add(12 * time.Hour).Truncate(time.Second)
	return []rules.Reach{
		reach("app", "10.77.0.1/32", 6, 8080, 8080, rules.Allowed, end),
		reach("app", "fd42:7::1/128", 6, 8080, 8080, rules.Allowed, end),
		reach("wiki", "192.168.40.7/32", 6, 443, 443, rules.Allowed, end.Add(-9*time.Hour)),
		reach("wiki", "192.168.40.7/32", 1, 0, 0, rules.Allowed, end.Add(-9*time.Hour)),
		reach("payroll", "192.168.40.9/32", 6, 5432, 5432, rules.StaleCode, time.Time{}),
		reach("printers", "192.168.50.0/24", 0, 0, 0, rules.OutsideTime, time.Now().Add(20*time.Hour).Truncate(time.Minute)),
		reach("lab", "192.168.60.0/24", 17, 5000, 5010, rules.NoGrant, time.Time{}),
	}
}

// publishedReaches are openReaches with resources among them, of publishedPolicy.
func publishedReaches() []rules.Reach {
	end := time.Now().Add(12 * time.Hour).Truncate(time.Second)
	return append(openReaches(),
		reach("board", "10.77.128.1/32", 6, 80, 80, rules.Allowed, end), reach("board", "fd42:7::8000:0:0:1/128", 6, 80, 80, rules.Allowed, end),
		reach("orders", "10.77.128.2/32", 6, 5432, 5432, rules.Allowed, end.Add(-11*time.Hour)), reach("files", "10.77.128.3/32", 6, 445, 445, rules.StaleCode, time.Time{}))
}

const publishedPolicy = `{"resources": {
	"board": {"to": "http://localhost:3000", "title": "Team board", "note": "Ask Erin for an account."},
	"orders": {"to": "10.6.0.2:5432", "title": "Orders database of the northern warehouses"}, "files": {"to": "nas.lan", "ports": ["tcp:445"], "title": "Team files"}}}`

func closedReaches() []rules.Reach {
	rs := openReaches()
	for i := range rs {
		if rs[i].Allow || rs[i].Reason == rules.StaleCode {
			rs[i].Verdict = rules.Verdict{Reason: rules.NoSession}
		}
	}
	return rs
}
