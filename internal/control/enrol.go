package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net/netip"
	"time"

	"vpnd/internal/dataplane"
	"vpnd/peers"
	"vpnd/peers/conf"
)

// Enrolment is what a browser needs to set an authenticator up.
type Enrolment struct {
	User       string
	Enrolled   bool   // she has an authenticator already: no URL and no Secret
	OTPAuthURL string // secret
	Secret     string // base32; secret
	Expires    time.Time
}

// EnrolBegin asks to begin an enrolment, or to go on with one.
type EnrolBegin struct {
	Token   string // secret
	Browser string // the cookie's value
}

// EnrolBegin answers the first step of an enrolment. browser is the cookie's value: the
// secret shown to it is shown to no other browser.
func (s *Service) EnrolBegin(ctx context.Context, token, browser string) (Enrolment, error) {
	a, err := s.ask(ctx, EnrolBegin{Token: token, Browser: browser})
	if err != nil {
		return Enrolment{}, err
	}
	return *a.Enrolment, nil
}

func (q EnrolBegin) decide(ctx context.Context, d *decision) (Answer, error) {
	v := d.View()
	inv, u, err := d.invitation(v, q.Token)
	if err != nil {
		return Answer{}, err
	}
	if !inv.Used.IsZero() {
		return Answer{}, invitationUsed()
	}
	if q.Browser == "" {
		return Answer{}, Refuse("browser_no_cookie")
	}
	e := &Enrolment{User: u.Name, Expires: inv.Expires}
	a := Answer{Index: v.Index(), Enrolment: e}
	if len(u.TOTP) != 0 {
		e.Enrolled = true
		return a, nil
	}
	pending := inv.Pending
	if !sameBrowser(inv, q.Browser) {
		if wait := d.begunElsewhere(inv); wait > 0 {
			return Answer{}, Refuse("browsers_limit").after(wait)
		}
		d.actor = u.Name
		index, res, err := d.newPending(ctx, inv, u, q.Browser)
		if err != nil {
			return Answer{}, err
		}
		a.Index = index
		if res.User != nil && len(res.User.TOTP) != 0 { // meanwhile, with another invitation
			e.Enrolled = true
			return a, nil
		}
		// A repeat is told of the invitation as it is by now: it may be another browser's.
		if res.Invitation == nil || !sameBrowser(res.Invitation, q.Browser) {
			return Answer{}, otherBrowser()
		}
		pending = res.Invitation.Pending
	}
	secret, err := d.sealer.Open(u.ID, fieldTOTP, pending)
	if err != nil {
		return Answer{}, internal("open the secret of this enrolment", err)
	}
	set, _ := v.Settings()
	e.Secret = string(secret)
	e.OTPAuthURL = d.factor.setup(set.URL, u.Name, secret)
	return a, nil
}

// newPending gives the browser a secret of its own. State answers with the one it has
// when the same browser asks twice at once.
func (d *decision) newPending(ctx context.Context, inv *peers.Invitation, u *peers.User, browser string) (uint64, peers.Result, error) {
	secret, err := d.factor.newSecret()
	if err != nil {
		return 0, peers.Result{}, internal("make a secret", err)
	}
	sealed, err := d.sealer.Seal(u.ID, fieldTOTP, secret)
	if err != nil {
		return 0, peers.Result{}, internal("make a secret", err)
	}
	index, res, err := d.propose(ctx, peers.EnrolBegin{Invitation: inv.ID, Browser: browserHash(browser), Secret: sealed})
	return index, res, invitationRefused(err)
}

func otherBrowser() *Error {
	return Refuse("browser_changed")
}

func browserHash(browser string) [32]byte { return sha256.Sum256([]byte(browser)) }

// sameBrowser says whether the invitation's pending secret was shown to this browser.
func sameBrowser(inv *peers.Invitation, browser string) bool {
	return len(inv.Pending) != 0 && fromBrowser(inv, browser)
}

// fromBrowser says whether it was this browser that the invitation was shown to, or used by.
func fromBrowser(inv *peers.Invitation, browser string) bool {
	h := browserHash(browser)
	return browser != "" && subtle.ConstantTimeCompare(h[:], inv.Browser[:]) == 1
}

// FinishRequest asks for the second step of an enrolment.
type FinishRequest struct {
	Token, Browser, Code string
	Device, PublicKey    string
}

// Finished is an enrolled device.
type Finished struct {
	Device    string // "alice/phone"
	Addresses []netip.Addr
	Config    string // without its PrivateKey line; secret
	PortalURL string // where to sign in, inside the tunnel
	Repeated  bool   // the same answer as before
}

// EnrolFinish confirms the code, spends the invitation and adds the device. It answers
// when the gateway knows the device, so that its first handshake succeeds.
func (s *Service) EnrolFinish(ctx context.Context, r FinishRequest) (Finished, error) {
	a, err := s.ask(ctx, r)
	if err != nil {
		return Finished{}, err
	}
	c, err := s.configAfter(a, r.Device)
	if err != nil {
		return Finished{}, err
	}
	f := Finished{
		Device: c.User.Name + "/" + c.Device.Name, Addresses: c.Device.Addrs,
		Config: c.Config, PortalURL: s.TunnelURL(), Repeated: a.Repeated,
	}
	return f, s.opened(ctx, a.Index, "device_not_yet")
}

// decide works under the user's lock.
func (r FinishRequest) decide(ctx context.Context, d *decision) (Answer, error) {
	_, u, err := d.invitation(d.View(), r.Token)
	if err != nil {
		return Answer{}, err
	}
	key, err := peers.ParseKey(r.PublicKey)
	if err != nil {
		return Answer{}, refused(err)
	}
	if err := peers.CheckDeviceName(r.Device); err != nil {
		return Answer{}, refused(err)
	}
	unlock, err := d.lockUser(ctx, u.ID)
	if err != nil {
		return Answer{}, err
	}
	defer unlock()

	v := d.View() // what held before the lock may have changed
	inv, u, err := d.invitation(v, r.Token)
	if err != nil {
		return Answer{}, err
	}
	d.actor = u.Name
	if first, ok, err := d.evaluated(ctx, u); ok {
		if err != nil {
			return Answer{}, invitationRefused(err)
		}
		dev, err := deviceOf(first.Result, key)
		if err != nil {
			return Answer{}, err
		}
		return Answer{Index: first.Index, Device: dev.ID}, nil
	}
	if !inv.Used.IsZero() {
		// Whoever has the link and the public key alone gets no preshared key for them.
		if dev := v.DeviceByKey(key); dev != nil && dev.ID == inv.Device && fromBrowser(inv, r.Browser) {
			return Answer{Index: v.Index(), Device: dev.ID, Repeated: true}, nil
		}
		return Answer{}, invitationUsed()
	}
	secret, err := r.secret(v, inv, u, key)
	if err != nil {
		return Answer{}, err
	}
	step, err := d.checkCode(ctx, v, u, secret, r.Code)
	if err != nil {
		return Answer{}, err
	}
	dev, err := d.newDevice(r.Device, nil, key)
	if err != nil {
		return Answer{}, err
	}
	index, res, err := d.commit(ctx, peers.EnrolFinish{
		Invitation: inv.ID, Browser: browserHash(r.Browser), Step: step, Device: dev,
	})
	if err != nil {
		return Answer{}, invitationRefused(d.codeRefused(u, err))
	}
	added, err := deviceOf(res, key)
	if err != nil {
		return Answer{}, err
	}
	return Answer{Index: index, Device: added.ID}, nil
}

// secret is the one that the code must be of. What State would refuse anyway is refused
// before a code is spent on it.
func (r FinishRequest) secret(v *peers.View, inv *peers.Invitation, u *peers.User, key peers.Key) (peers.Sealed, error) {
	switch {
	case v.DeviceByKey(key) != nil || v.Retired(key):
		return nil, Refuse("key_known")
	case v.DeviceByName(u.ID, r.Device) != nil:
		return nil, Refuse("device_exists", u.Name, r.Device)
	case len(u.TOTP) != 0:
		return u.TOTP, nil
	case len(inv.Pending) == 0:
		return nil, Refuse("enrolment_no_secret")
	case !sameBrowser(inv, r.Browser):
		return nil, otherBrowser()
	}
	return inv.Pending, nil
}

// newDevice makes a device's id and preshared key.
func (l *Leader) newDevice(name string, tags []string, key peers.Key) (peers.NewDevice, error) {
	n := peers.NewDevice{ID: newID(), Name: name, Tags: tags, PublicKey: key}
	psk, err := l.newPSK(n.ID)
	n.PresharedKey = psk
	return n, err
}

func (l *Leader) newPSK(device peers.ID) (peers.Sealed, error) {
	psk := make([]byte, 32)
	if _, err := rand.Read(psk); err != nil {
		return nil, internal("make a preshared key", err)
	}
	sealed, err := l.sealer.Seal(device, fieldPSK, psk)
	if err != nil {
		return nil, internal("make a preshared key", err)
	}
	return sealed, nil
}

// clientConfig is a device's wg-quick text without its PrivateKey line.
func (s *Service) clientConfig(d *peers.Device) (string, error) {
	set, _ := s.View().Settings()
	psk, err := s.sealer.PresharedKey(d)
	if err != nil {
		return "", internal("open the preshared key of "+d.Name, err)
	}
	return conf.Config{Device: *d, PSK: psk, Settings: set}.Text(""), nil
}

// EnrolStatus is "waiting", "connected" (a handshake was seen) or "active" (signed in).
func (s *Service) EnrolStatus(ctx context.Context, token, publicKey string) (string, error) {
	v := s.View()
	inv, _, err := s.invitation(v, token)
	if err != nil {
		return "", err
	}
	key, err := peers.ParseKey(publicKey)
	if err != nil {
		return "", refused(err)
	}
	d := v.DeviceByKey(key)
	if d == nil || d.ID != inv.Device {
		return "", Refuse("enrolment_without_device")
	}
	if LiveSession(v, d.ID, s.Time(v)) != nil {
		return "active", nil
	}
	stats, err := s.gateway.Stats(ctx, dataplane.Key(key))
	if err != nil {
		return "", internal("read the state of the tunnel", err)
	}
	if !stats.Peers[dataplane.Key(key)].LastHandshake.IsZero() {
		return "connected", nil
	}
	return "waiting", nil
}
