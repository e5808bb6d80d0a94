package peers

import (
	"net/netip"
	"time"
)

// Command is one change of State. Its encoding is canonical CBOR in an envelope that
// carries kind, request id, time and actor; unknown fields and unknown kinds are
// errors. A released kind is frozen: a changed meaning is a new kind.
type Command struct {
	Request ID        // a repeat within the last 4,096 commands returns the first result
	At      time.Time // the proposer's clock, UTC; State's time is the latest it has seen
	Actor   string    // for the audit log
	Body    Body
}

// Body is one of the structs below.
type Body interface {
	kind() kind
	// apply checks everything before it changes anything; its error is a refusal.
	apply(t *tx) (Result, error)
}

type kind uint16

// Result is what Apply returns: Err is one of the sentinel errors of this package
// (errors.Is works on a wrapping of it), and then nothing has changed but counters.
type Result struct {
	Err        error
	User       *User
	Device     *Device
	Invitation *Invitation
	Session    *Session
	Policy     *PolicyVersion
	Count      int // SessionEnd, Expire: how many
}

// Kinds are append-only.
const (
	kindInit kind = iota + 1
	kindConfigure
	kindUserAdd
	kindUserEnable
	kindUserRemove
	kindUserUnlock
	kindTOTPReset
	kindInvitationAdd
	kindInvitationRemove
	kindEnrolBegin
	kindEnrolFinish
	kindDeviceAdd
	kindDeviceEnable
	kindDeviceRemove
	kindDeviceRotate
	kindLogin
	kindFailure
	kindSessionEnd
	kindExpire
	kindPolicyApply
	kindNote
	kindTimeReset
	kindPolicyTry
	kindPolicyConfirm
	kindPolicyRevert
)

// Init makes the cluster. It is the first command of every log, and refused ever after.
type Init struct {
	Settings Settings `cbor:"1,keyasint"`
	Policy   string   `cbor:"2,keyasint,omitempty"`
}

// Configure changes settings: nil fields stay as they are.
type Configure struct {
	Endpoint *string         `cbor:"1,keyasint,omitempty"`
	URL      *string         `cbor:"2,keyasint,omitempty"`
	Routes   *[]netip.Prefix `cbor:"3,keyasint,omitempty"`
	DNS      *[]netip.Addr   `cbor:"4,keyasint,omitempty"`
	Session  *time.Duration  `cbor:"5,keyasint,omitempty"`
}

// UserAdd adds a user and, when Invitation is not nil, an invitation.
type UserAdd struct {
	ID         ID             `cbor:"1,keyasint,omitzero"`
	Name       string         `cbor:"2,keyasint,omitempty"`
	Invitation *NewInvitation `cbor:"3,keyasint,omitempty"`
}

// NewInvitation is the part of an invitation that its maker decides.
type NewInvitation struct {
	ID      ID
	Hash    [32]byte
	Expires time.Time
}

// UserEnable enables or disables. Disabling ends the user's sessions.
type UserEnable struct {
	User    ID   `cbor:"1,keyasint,omitzero"`
	Enabled bool `cbor:"2,keyasint,omitempty"`
}

// UserRemove removes a user, her devices (leaving tombstones), invitations and sessions.
type UserRemove struct {
	User ID `cbor:"1,keyasint,omitzero"`
}

// UserUnlock lifts a lock and forgets failures and lockouts.
type UserUnlock struct {
	User ID `cbor:"1,keyasint,omitzero"`
}

// TOTPReset takes the user's authenticator away and ends her sessions. LastStep, failures
// and lock stay: enrolling again is no way around them.
type TOTPReset struct {
	User ID `cbor:"1,keyasint,omitzero"`
}

// InvitationAdd replaces the user's unused invitations by a new one.
type InvitationAdd struct {
	User       ID            `cbor:"1,keyasint,omitzero"`
	Invitation NewInvitation `cbor:"2,keyasint"`
}

// InvitationRemove withdraws an invitation.
type InvitationRemove struct {
	Invitation ID `cbor:"1,keyasint,omitzero"`
}

// EnrolBegin binds a new pending secret to a browser. For the same browser, a pending
// secret that is there already stays and is returned.
type EnrolBegin struct {
	Invitation ID       `cbor:"1,keyasint,omitzero"`
	Browser    [32]byte `cbor:"2,keyasint,omitzero"`
	Secret     Sealed   `cbor:"3,keyasint,omitempty"`
}

// EnrolFinish uses an invitation up: the pending secret becomes the user's (when she has
// none), Step is spent, and the device is added. With the invitation used and the same
// public key it returns the same device again and changes nothing.
type EnrolFinish struct {
	Invitation ID        `cbor:"1,keyasint,omitzero"`
	Browser    [32]byte  `cbor:"2,keyasint,omitzero"`
	Step       int64     `cbor:"3,keyasint,omitempty"`
	Device     NewDevice `cbor:"4,keyasint"`
}

// NewDevice is a device before State has given it addresses.
type NewDevice struct {
	ID           ID       `cbor:"1,keyasint,omitzero"`
	Name         string   `cbor:"2,keyasint,omitempty"`
	Tags         []string `cbor:"3,keyasint,omitempty"`
	PublicKey    Key      `cbor:"4,keyasint,omitzero"`
	PresharedKey Sealed   `cbor:"5,keyasint,omitempty"`
}

// DeviceAdd adds a device for an administrator.
type DeviceAdd struct {
	User   ID        `cbor:"1,keyasint,omitzero"`
	Device NewDevice `cbor:"2,keyasint"`
}

// DeviceEnable enables or disables. Disabling ends the device's session.
type DeviceEnable struct {
	Device  ID   `cbor:"1,keyasint,omitzero"`
	Enabled bool `cbor:"2,keyasint,omitempty"`
}

// DeviceRemove removes a device and leaves a tombstone of its key.
type DeviceRemove struct {
	Device ID `cbor:"1,keyasint,omitzero"`
}

// DeviceRotate gives a device new keys; it keeps name and addresses, loses its session,
// and the old public key becomes a tombstone.
type DeviceRotate struct {
	Device       ID     `cbor:"1,keyasint,omitzero"`
	PublicKey    Key    `cbor:"2,keyasint,omitzero"`
	PresharedKey Sealed `cbor:"3,keyasint,omitempty"`
}

// Login spends a TOTP step of the device's user and opens or renews the session. A
// step that is not above the last accepted one is ErrCodeUsed; a locked user ErrLocked.
// The session is absolute: At + Settings.Session as of now, also for a renewal.
type Login struct {
	Device ID    `cbor:"1,keyasint,omitzero"`
	Step   int64 `cbor:"2,keyasint,omitempty"`
}

// Failure counts a wrong code. Five in a row lock the user: 15 minutes, then doubling up
// to a day. While she is locked it changes nothing and returns ErrLocked.
type Failure struct {
	User ID `cbor:"1,keyasint,omitzero"`
}

// SessionEnd ends the sessions of a device, of a user, or all.
type SessionEnd struct {
	Device ID `cbor:"1,keyasint,omitzero"` // zero: see User
	User   ID `cbor:"2,keyasint,omitzero"` // zero too: all sessions
}

// Expire removes sessions and invitations that have ended by At.
type Expire struct{}

// PolicyApply makes a text, parsed and tested before it was proposed, the policy.
type PolicyApply struct {
	Text string `cbor:"1,keyasint,omitempty"`
	Base uint64 `cbor:"2,keyasint,omitempty"` // the version it was made from; another current one is ErrConflict
	Note string `cbor:"3,keyasint,omitempty"`
}

// Note is an audit entry alone: something that happened to the gateway.
type Note struct {
	Action string `cbor:"1,keyasint,omitempty"`
	Target string `cbor:"2,keyasint,omitempty"`
	Detail string `cbor:"3,keyasint,omitempty"`
}

// TimeReset ends all sessions and makes At the state's time, even if that is earlier.
type TimeReset struct{}

// PolicyTry is PolicyApply of a text that is taken back unless PolicyConfirm comes from the
// same actor within For.
type PolicyTry struct {
	Text string        `cbor:"1,keyasint,omitempty"`
	Base uint64        `cbor:"2,keyasint,omitempty"`
	Note string        `cbor:"3,keyasint,omitempty"`
	For  time.Duration `cbor:"4,keyasint,omitempty"`
}

// PolicyConfirm keeps the version that waits for it. It is for the actor who applied it,
// and in time: at the deadline, by the command's At, it is ErrExpired.
type PolicyConfirm struct {
	Version uint64 `cbor:"1,keyasint,omitempty"`
}

// PolicyRevert takes the version back that waits for a confirmation: what was in force
// before it becomes a new version. Unless Early it is refused before the deadline.
type PolicyRevert struct {
	Version uint64 `cbor:"1,keyasint,omitempty"`
	Early   bool   `cbor:"2,keyasint,omitempty"`
}

func (Init) kind() kind             { return kindInit }
func (Configure) kind() kind        { return kindConfigure }
func (UserAdd) kind() kind          { return kindUserAdd }
func (UserEnable) kind() kind       { return kindUserEnable }
func (UserRemove) kind() kind       { return kindUserRemove }
func (UserUnlock) kind() kind       { return kindUserUnlock }
func (TOTPReset) kind() kind        { return kindTOTPReset }
func (InvitationAdd) kind() kind    { return kindInvitationAdd }
func (InvitationRemove) kind() kind { return kindInvitationRemove }
func (EnrolBegin) kind() kind       { return kindEnrolBegin }
func (EnrolFinish) kind() kind      { return kindEnrolFinish }
func (DeviceAdd) kind() kind        { return kindDeviceAdd }
func (DeviceEnable) kind() kind     { return kindDeviceEnable }
func (DeviceRemove) kind() kind     { return kindDeviceRemove }
func (DeviceRotate) kind() kind     { return kindDeviceRotate }
func (Login) kind() kind            { return kindLogin }
func (Failure) kind() kind          { return kindFailure }
func (SessionEnd) kind() kind       { return kindSessionEnd }
func (Expire) kind() kind           { return kindExpire }
func (PolicyApply) kind() kind      { return kindPolicyApply }
func (Note) kind() kind             { return kindNote }
func (TimeReset) kind() kind        { return kindTimeReset }
func (PolicyTry) kind() kind        { return kindPolicyTry }
func (PolicyConfirm) kind() kind    { return kindPolicyConfirm }
func (PolicyRevert) kind() kind     { return kindPolicyRevert }
