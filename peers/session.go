package peers

import (
	"iter"
	"slices"
	"strings"
	"time"
)

// Code is an accepted one-time code within a session.
type Code struct {
	Serial uint32 // unique among the cluster's codes; from 1 to 0xfffffeff, for it is written into marks of flows
	At     time.Time
}

type wireCode struct {
	Serial uint32 `cbor:"1,keyasint"`
	At     stamp  `cbor:"2,keyasint"`
}

// Session is a device's time-bounded right to pass.
type Session struct {
	Device  ID
	User    ID
	Started time.Time
	Until   time.Time
	// Codes, oldest first: all that the session was given, so that the gaps between them
	// are true to any freshness. Of more than 256 those are left out that change the gaps
	// least; the first and the newest stay.
	Codes []Code
}

type wireSession struct {
	Device  ID         `cbor:"1,keyasint"`
	User    ID         `cbor:"2,keyasint"`
	Started stamp      `cbor:"3,keyasint"`
	Until   stamp      `cbor:"4,keyasint"`
	Codes   []wireCode `cbor:"5,keyasint"`
}

// MarshalCBOR gives the canonical encoding.
func (s Session) MarshalCBOR() ([]byte, error) {
	w := wireSession{s.Device, s.User, stampOf(s.Started), stampOf(s.Until), make([]wireCode, len(s.Codes))}
	for i, c := range s.Codes {
		w.Codes[i] = wireCode{c.Serial, stampOf(c.At)}
	}
	return encMode.Marshal(w)
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (s *Session) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wireSession](b)
	*s = Session{w.Device, w.User, w.Started.time(), w.Until.time(), make([]Code, len(w.Codes))}
	for i, c := range w.Codes {
		s.Codes[i] = Code{c.Serial, c.At.time()}
	}
	return err
}

// Login spends a TOTP step of the device's user and opens or renews the session. A
// step that is not above the last accepted one is ErrCodeUsed; a locked user ErrLocked.
// The session is absolute: At + Settings.Session as of now, also for a renewal.
type Login struct {
	Device ID    `cbor:"1,keyasint,omitzero"`
	Step   int64 `cbor:"2,keyasint,omitempty"`
}

func (c Login) apply(t *tx) (Result, error) {
	d, u, err := t.device(c.Device)
	if err != nil {
		return Result{}, err
	}
	if err := checkEnabled(u); err != nil {
		return Result{}, err
	}
	if d.Disabled {
		return Result{}, refuse("device_disabled", t.deviceName(d))
	}
	if len(u.TOTP) == 0 {
		return Result{}, refuse("user_not_enrolled", u.Name)
	}
	if err := t.checkLocked(u); err != nil {
		return Result{}, err
	}
	if err := checkStep(u, c.Step); err != nil {
		return Result{}, err
	}
	u = clone(u)
	u.LastStep, u.Failures, u.Lockouts, u.Locked = c.Step, 0, 0, time.Time{}
	t.put(tableUsers, u)

	now := t.m.Time.time()
	t.m.Serial = t.m.Serial%maxSerial + 1
	s, action := &Session{Device: d.ID, User: u.ID, Started: now}, "session.start"
	if old := t.session(d.ID); old == nil {
		t.m.sessions++
	} else if now.Before(old.Until) {
		s, action = clone(old), "session.renew"
	}
	s.Until = now.Add(t.m.Settings.Session)
	s.Codes = prune(append(slices.Clip(s.Codes), Code{t.m.Serial, now}))
	t.put(tableSessions, s)
	t.touch(d)
	t.audit(action, t.deviceName(d), "until "+clock(s.Until))
	return Result{User: u, Device: d, Session: s}, nil
}

// SessionEnd ends the sessions of a device, of a user, or all.
type SessionEnd struct {
	Device ID `cbor:"1,keyasint,omitzero"` // zero: see User
	User   ID `cbor:"2,keyasint,omitzero"` // zero too: all sessions
}

func (c SessionEnd) apply(t *tx) (Result, error) {
	var (
		ended  []*Session
		target string
		result Result
		err    error
	)
	switch {
	case !c.Device.IsZero():
		if result.Device, result.User, err = t.device(c.Device); err != nil {
			return Result{}, err
		}
		if !c.User.IsZero() && c.User != result.User.ID {
			return Result{}, refuse("device_of_another", t.deviceName(result.Device), c.User)
		}
		target = t.deviceName(result.Device)
		if s := t.session(c.Device); s != nil {
			ended = append(ended, s)
		}
	case !c.User.IsZero():
		if result.User, err = t.user(c.User); err != nil {
			return Result{}, err
		}
		target = result.User.Name
		for d := range devicesOf(t, c.User) {
			if s := t.session(d.ID); s != nil {
				ended = append(ended, s)
			}
		}
	default:
		target = "all"
		ended = slices.Collect(scan[Session](t, tableSessions, byID, nil))
	}
	for _, s := range ended {
		t.endSession(s)
		if t.m.Time < stampOf(s.Until) {
			result.Count++
		}
	}
	if len(ended) == 1 {
		result.Session = ended[0]
	}
	if result.Count > 0 {
		t.audit("session.end", target, sessions(result.Count)+" ended")
	}
	return result, nil
}

// Expire removes sessions, invitations and self-tests that have ended by At.
type Expire struct{}

// Expire's work is bounded so that it never holds the log up for long: whoever proposes
// it does so again while Count is above 0.
func (Expire) apply(t *tx) (Result, error) {
	var names []string
	n := 0
	for s := range scan[Session](t, tableSessions, byEnd, nil) {
		if n == maxExpire || t.m.Time < stampOf(s.Until) {
			break
		}
		if d := get[Device](t, tableDevices, byID, s.Device[:]); d != nil && len(names) < 5 {
			names = append(names, t.deviceName(d))
		}
		t.endSession(s)
		n++
	}
	if n > 0 {
		detail := ""
		if n > 1 {
			detail = sessions(n) + " in all"
		}
		t.audit("session.expire", strings.Join(names, ", "), detail)
	}
	return Result{Count: n + t.expireInvitations(maxExpire) + t.expireSelfTests()}, nil
}

// prune bounds a session's codes. The newest and the first always stay. Freshness looks
// at the gaps between codes, so leaving one out is no small thing: its two gaps look
// like one. Only beyond maxCodes is the one left out that makes the smallest new gap;
// at worst that ends an old flow early, and never lets one live longer.
func prune(codes []Code) []Code {
	for len(codes) > maxCodes {
		least, at := time.Duration(-1), 0
		for i := 1; i < len(codes)-1; i++ {
			if gap := codes[i+1].At.Sub(codes[i-1].At); least < 0 || gap < least {
				least, at = gap, i
			}
		}
		codes = slices.Delete(codes, at, at+1)
	}
	return codes
}

func (t *tx) session(device ID) *Session {
	return get[Session](t, tableSessions, byID, device[:])
}

func (t *tx) endSession(s *Session) {
	t.delete(tableSessions, s)
	t.m.sessions--
	t.touched = append(t.touched, s.Device)
}

// endSessionOf ends a device's session and says whether there was one that lived.
func (t *tx) endSessionOf(device ID) bool {
	s := t.session(device)
	if s == nil {
		return false
	}
	t.endSession(s)
	return t.m.Time < stampOf(s.Until)
}

// Session returns a device's session, also one that has ended and is not yet removed:
// look at Until.
func (v *View) Session(device ID) *Session { return get[Session](v, tableSessions, byID, device[:]) }

// Sessions yields all sessions by end, also those that have ended.
func (v *View) Sessions() iter.Seq[*Session] { return scan[Session](v, tableSessions, byEnd, nil) }

func sessions(n int) string { return count(n, "session") }
