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

// EnrolBegin answers the first step of an enrolment. browser is the cookie's value: the
// secret shown to it is shown to no other browser.
func (s *Service) EnrolBegin(ctx context.Context, token, browser string) (Enrolment, error) {
	v := s.View()
	inv, u, err := s.invitation(v, token)
	if err != nil {
		return Enrolment{}, err
	}
	if !inv.Used.IsZero() {
		return Enrolment{}, invitationUsed()
	}
	if browser == "" {
		return Enrolment{}, refuse(CodeInvalid, "Your browser kept no cookie for this page. Allow cookies for it and open the link again.")
	}
	e := Enrolment{User: u.Name, Expires: inv.Expires}
	if len(u.TOTP) != 0 {
		e.Enrolled = true
		return e, nil
	}
	pending := inv.Pending
	if !sameBrowser(inv, browser) {
		if wait := s.begunElsewhere(inv); wait > 0 {
			e := refuse(CodeLimit,
				"This invitation was opened in too many browsers in a short time. Go on in the one where you began, or wait a minute. If it was not you, tell an administrator.")
			e.RetryAfter = wait
			return Enrolment{}, e
		}
		res, err := s.newPending(WithActor(ctx, u.Name), inv, u, browser)
		if err != nil {
			return Enrolment{}, err
		}
		if len(res.User.TOTP) != 0 { // meanwhile, with another invitation
			e.Enrolled = true
			return e, nil
		}
		pending = res.Invitation.Pending
	}
	secret, err := s.sealer.Open(u.ID, fieldTOTP, pending)
	if err != nil {
		return Enrolment{}, internal("open the secret of this enrolment", err)
	}
	set, _ := v.Settings()
	e.Secret = string(secret)
	e.OTPAuthURL = otpauthURL(issuer(set.URL), u.Name, e.Secret)
	return e, nil
}

// newPending gives the browser a secret of its own. State answers with the one it has
// when the same browser asks twice at once.
func (s *Service) newPending(ctx context.Context, inv *peers.Invitation, u *peers.User, browser string) (peers.Result, error) {
	secret, err := newTOTPSecret()
	if err != nil {
		return peers.Result{}, internal("make a secret", err)
	}
	sealed, err := s.sealer.Seal(u.ID, fieldTOTP, []byte(secret))
	if err != nil {
		return peers.Result{}, internal("make a secret", err)
	}
	_, res, err := s.propose(ctx, peers.EnrolBegin{Invitation: inv.ID, Browser: browserHash(browser), Secret: sealed})
	return res, invitationRefused(err)
}

func browserHash(browser string) [32]byte { return sha256.Sum256([]byte(browser)) }

// sameBrowser says whether the invitation's pending secret was shown to this browser.
func sameBrowser(inv *peers.Invitation, browser string) bool {
	h := browserHash(browser)
	return browser != "" && len(inv.Pending) != 0 && subtle.ConstantTimeCompare(h[:], inv.Browser[:]) == 1
}

// FinishRequest is the second step of an enrolment.
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
	_, u, err := s.invitation(s.View(), r.Token)
	if err != nil {
		return Finished{}, err
	}
	key, err := peers.ParseKey(r.PublicKey)
	if err != nil {
		return Finished{}, refused(err)
	}
	if err := peers.CheckDeviceName(r.Device); err != nil {
		return Finished{}, refused(err)
	}
	index, d, repeated, err := s.enrol(ctx, r, u.ID, key)
	if err != nil {
		return Finished{}, err
	}
	f, err := s.finished(u.Name, d)
	if err != nil {
		return Finished{}, err
	}
	f.Repeated = repeated
	return f, s.opened(ctx, index, "Your device was added")
}

// enrol is EnrolFinish up to the commit, under the user's lock.
func (s *Service) enrol(ctx context.Context, r FinishRequest, user peers.ID, key peers.Key) (index uint64, d *peers.Device, repeated bool, err error) {
	unlock, err := s.lockUser(ctx, user)
	if err != nil {
		return 0, nil, false, err
	}
	defer unlock()

	v := s.View()
	inv, u, err := s.invitation(v, r.Token)
	if err != nil {
		return 0, nil, false, err
	}
	if !inv.Used.IsZero() {
		if d := v.DeviceByKey(key); d != nil && d.ID == inv.Device {
			return v.Index(), d, true, nil
		}
		return 0, nil, false, invitationUsed()
	}
	// What State would refuse anyway is refused before a code is spent on it.
	if v.DeviceByKey(key) != nil || v.Retired(key) {
		return 0, nil, false, refuse(CodeKeyTaken,
			"This public key is or was in use here already. Each device needs a new key: make another and try again.")
	}
	if v.DeviceByName(u.ID, r.Device) != nil {
		return 0, nil, false, refuse(CodeExists,
			"%s has a device named %q already. Choose another name for this one.", u.Name, r.Device)
	}
	secret := u.TOTP
	if len(secret) == 0 {
		switch {
		case len(inv.Pending) == 0:
			return 0, nil, false, refuse(CodeNotEnrolled,
				"No authenticator has been set up with this invitation yet. Open the link again and scan its code.")
		case !sameBrowser(inv, r.Browser):
			return 0, nil, false, refuse(CodeOtherBrowser,
				"This invitation was opened in another browser since, which made the code shown here worthless. "+
					"Go on there, or reload this page and scan the new code. If the other browser is not yours, tell an administrator.")
		}
		secret = inv.Pending
	}
	ctx = WithActor(ctx, u.Name)
	step, err := s.checkCode(ctx, v, u, secret, r.Code)
	if err != nil {
		return 0, nil, false, err
	}
	dev, err := s.newDevice(r.Device, nil, key)
	if err != nil {
		return 0, nil, false, err
	}
	index, res, err := s.decide(ctx, peers.EnrolFinish{
		Invitation: inv.ID, Browser: browserHash(r.Browser), Step: step, Device: dev,
	})
	if err != nil {
		return 0, nil, false, invitationRefused(s.codeRefused(u, err))
	}
	return index, res.Device, false, nil
}

// newDevice makes a device's id and preshared key.
func (s *Service) newDevice(name string, tags []string, key peers.Key) (peers.NewDevice, error) {
	n := peers.NewDevice{ID: newID(), Name: name, Tags: tags, PublicKey: key}
	psk, err := s.newPSK(n.ID)
	n.PresharedKey = psk
	return n, err
}

func (s *Service) newPSK(device peers.ID) (peers.Sealed, error) {
	psk := make([]byte, 32)
	if _, err := rand.Read(psk); err != nil {
		return nil, internal("make a preshared key", err)
	}
	sealed, err := s.sealer.Seal(device, fieldPSK, psk)
	if err != nil {
		return nil, internal("make a preshared key", err)
	}
	return sealed, nil
}

func (s *Service) finished(user string, d *peers.Device) (Finished, error) {
	config, err := s.clientConfig(d)
	if err != nil {
		return Finished{}, err
	}
	return Finished{
		Device: user + "/" + d.Name, Addresses: d.Addrs, Config: config, PortalURL: s.TunnelURL(),
	}, nil
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
		return "", refuse(CodeNotFound, "This invitation has set up no device with this key. Finish the steps before, or ask for a new invitation.")
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
