package peers

import (
	"net/netip"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// The wire form of the objects that hold times, in commands and in snapshots. Fields
// and their numbers are frozen once released; a new field takes the next number.

type wireSettings struct {
	Cluster    ID             `cbor:"1,keyasint"`
	Created    stamp          `cbor:"2,keyasint"`
	PrivateKey Sealed         `cbor:"3,keyasint,omitempty"`
	PublicKey  Key            `cbor:"4,keyasint,omitzero"`
	CAKey      Sealed         `cbor:"5,keyasint,omitempty"`
	CACert     []byte         `cbor:"6,keyasint,omitempty"`
	Network    []netip.Prefix `cbor:"7,keyasint,omitempty"`
	Endpoint   string         `cbor:"8,keyasint,omitempty"`
	URL        string         `cbor:"9,keyasint,omitempty"`
	Routes     []netip.Prefix `cbor:"10,keyasint,omitempty"`
	DNS        []netip.Addr   `cbor:"11,keyasint,omitempty"`
	Session    time.Duration  `cbor:"12,keyasint,omitempty"`
	Masquerade bool           `cbor:"13,keyasint,omitempty"`
}

// MarshalCBOR gives the canonical encoding.
func (s Settings) MarshalCBOR() ([]byte, error) {
	if err := checkTime(s.Created); err != nil {
		return nil, err
	}
	return encMode.Marshal(wireSettings{s.Cluster, stampOf(s.Created), s.PrivateKey, s.PublicKey, s.CAKey, s.CACert,
		s.Network, s.Endpoint, s.URL, s.Routes, s.DNS, s.Session, s.Masquerade})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (s *Settings) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wireSettings](b)
	*s = Settings{w.Cluster, w.Created.time(), w.PrivateKey, w.PublicKey, w.CAKey, w.CACert,
		w.Network, w.Endpoint, w.URL, w.Routes, w.DNS, w.Session, w.Masquerade}
	return err
}

type wireUser struct {
	ID       ID     `cbor:"1,keyasint"`
	Name     string `cbor:"2,keyasint"`
	Created  stamp  `cbor:"3,keyasint"`
	Disabled bool   `cbor:"4,keyasint,omitempty"`
	TOTP     Sealed `cbor:"5,keyasint,omitempty"`
	LastStep int64  `cbor:"6,keyasint,omitempty"`
	Failures int    `cbor:"7,keyasint,omitempty"`
	Lockouts int    `cbor:"8,keyasint,omitempty"`
	Locked   stamp  `cbor:"9,keyasint,omitempty"`
}

// MarshalCBOR gives the canonical encoding.
func (u User) MarshalCBOR() ([]byte, error) {
	return encMode.Marshal(wireUser{u.ID, u.Name, stampOf(u.Created), u.Disabled, u.TOTP, u.LastStep,
		u.Failures, u.Lockouts, stampOf(u.Locked)})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (u *User) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wireUser](b)
	*u = User{w.ID, w.Name, w.Created.time(), w.Disabled, w.TOTP, w.LastStep, w.Failures, w.Lockouts, w.Locked.time()}
	return err
}

type wireDevice struct {
	ID           ID             `cbor:"1,keyasint"`
	User         ID             `cbor:"2,keyasint"`
	Name         string         `cbor:"3,keyasint"`
	Tags         []string       `cbor:"4,keyasint,omitempty"`
	PublicKey    Key            `cbor:"5,keyasint"`
	PresharedKey Sealed         `cbor:"6,keyasint,omitempty"`
	Addrs        []netip.Addr   `cbor:"7,keyasint"`
	Created      stamp          `cbor:"8,keyasint"`
	Disabled     bool           `cbor:"9,keyasint,omitempty"`
	Routes       []netip.Prefix `cbor:"10,keyasint,omitempty"`
}

// MarshalCBOR gives the canonical encoding.
func (d Device) MarshalCBOR() ([]byte, error) {
	return encMode.Marshal(wireDevice{d.ID, d.User, d.Name, d.Tags, d.PublicKey, d.PresharedKey, d.Addrs,
		stampOf(d.Created), d.Disabled, d.Routes})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (d *Device) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wireDevice](b)
	*d = Device{w.ID, w.User, w.Name, w.Tags, w.PublicKey, w.PresharedKey, w.Addrs, w.Created.time(), w.Disabled, w.Routes}
	return err
}

type wireNewInvitation struct {
	ID      ID       `cbor:"1,keyasint"`
	Hash    [32]byte `cbor:"2,keyasint"`
	Expires stamp    `cbor:"3,keyasint,omitempty"`
}

// MarshalCBOR gives the canonical encoding.
func (n NewInvitation) MarshalCBOR() ([]byte, error) {
	if err := checkTime(n.Expires); err != nil {
		return nil, err
	}
	return encMode.Marshal(wireNewInvitation{n.ID, n.Hash, stampOf(n.Expires)})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (n *NewInvitation) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wireNewInvitation](b)
	*n = NewInvitation{w.ID, w.Hash, w.Expires.time()}
	return err
}

type wireInvitation struct {
	ID      ID       `cbor:"1,keyasint"`
	Hash    [32]byte `cbor:"2,keyasint"`
	User    ID       `cbor:"3,keyasint"`
	Created stamp    `cbor:"4,keyasint"`
	Expires stamp    `cbor:"5,keyasint"`
	Used    stamp    `cbor:"6,keyasint,omitempty"`
	Device  ID       `cbor:"7,keyasint,omitzero"`
	Pending Sealed   `cbor:"8,keyasint,omitempty"`
	Browser [32]byte `cbor:"9,keyasint,omitzero"`
}

// MarshalCBOR gives the canonical encoding.
func (i Invitation) MarshalCBOR() ([]byte, error) {
	return encMode.Marshal(wireInvitation{i.ID, i.Hash, i.User, stampOf(i.Created), stampOf(i.Expires), stampOf(i.Used),
		i.Device, i.Pending, i.Browser})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (i *Invitation) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wireInvitation](b)
	*i = Invitation{w.ID, w.Hash, w.User, w.Created.time(), w.Expires.time(), w.Used.time(), w.Device, w.Pending, w.Browser}
	return err
}

type wireCode struct {
	Serial uint32 `cbor:"1,keyasint"`
	At     stamp  `cbor:"2,keyasint"`
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

type wirePolicy struct {
	Version uint64 `cbor:"1,keyasint"`
	Text    string `cbor:"2,keyasint,omitempty"`
	At      stamp  `cbor:"3,keyasint"`
	By      string `cbor:"4,keyasint,omitempty"`
	Note    string `cbor:"5,keyasint,omitempty"`
}

// MarshalCBOR gives the canonical encoding.
func (p PolicyVersion) MarshalCBOR() ([]byte, error) {
	return encMode.Marshal(wirePolicy{p.Version, p.Text, stampOf(p.At), p.By, p.Note})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (p *PolicyVersion) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wirePolicy](b)
	*p = PolicyVersion{w.Version, w.Text, w.At.time(), w.By, w.Note}
	return err
}

type wirePending struct {
	Version uint64 `cbor:"1,keyasint"`
	Back    uint64 `cbor:"2,keyasint"`
	Until   stamp  `cbor:"3,keyasint"`
	By      string `cbor:"4,keyasint,omitempty"`
}

// MarshalCBOR gives the canonical encoding.
func (p Pending) MarshalCBOR() ([]byte, error) {
	return encMode.Marshal(wirePending{p.Version, p.Back, stampOf(p.Until), p.By})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (p *Pending) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wirePending](b)
	*p = Pending{w.Version, w.Back, w.Until.time(), w.By}
	return err
}

type wireEntry struct {
	Index  uint64 `cbor:"1,keyasint"`
	At     stamp  `cbor:"2,keyasint"`
	Actor  string `cbor:"3,keyasint,omitempty"`
	Action string `cbor:"4,keyasint,omitempty"`
	Target string `cbor:"5,keyasint,omitempty"`
	Detail string `cbor:"6,keyasint,omitempty"`
}

// MarshalCBOR gives the canonical encoding.
func (e Entry) MarshalCBOR() ([]byte, error) {
	return encMode.Marshal(wireEntry{e.Index, stampOf(e.At), e.Actor, e.Action, e.Target, e.Detail})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (e *Entry) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wireEntry](b)
	*e = Entry{w.Index, w.At.time(), w.Actor, w.Action, w.Target, w.Detail}
	return err
}

var (
	_ cbor.Marshaler   = Settings{}
	_ cbor.Unmarshaler = (*Settings)(nil)
)

func unwire[W any](b []byte) (W, error) {
	var w W
	err := decMode.Unmarshal(b, &w)
	return w, err
}
