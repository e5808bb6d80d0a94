// Package peers is the replicated state: users, devices, invitations, sessions,
// addresses, settings and policy versions, and the commands that change them. It also
// writes what people carry away: a client's WireGuard config and its QR code.
//
// Apply is deterministic: no clock, no randomness, no crypto, no dependence on map
// order. Whoever proposes a command stamps time, ids and random values into it.
package peers

import (
	"net/netip"
	"time"
)

// Settings are the cluster's facts, set by Init and changed by Configure.
type Settings struct {
	Cluster    ID
	Created    time.Time
	PrivateKey Sealed         // the gateway's WireGuard key
	PublicKey  Key            // and its public half
	CAKey      Sealed         // PKCS #8 of the own CA
	CACert     []byte         // DER
	Network    []netip.Prefix // IPv4 first; the first address of each is the gateway's, the upper half is kept for published resources
	Endpoint   string         // host:port that clients dial
	URL        string         // of the public portal, without a trailing slash
	Routes     []netip.Prefix
	DNS        []netip.Addr // for the configs' DNS line; empty by default
	Session    time.Duration
	Masquerade bool
}

// User is a person.
type User struct {
	ID       ID
	Name     string // as written; unique without regard to case
	Created  time.Time
	Disabled bool
	TOTP     Sealed    // empty until enrolment is finished
	LastStep int64     // the last accepted TOTP step, Unix time / 30; 0 if none
	Failures int       // in a row, since the last accepted code or lock
	Lockouts int       // in a row; each doubles the next
	Locked   time.Time // until when; zero if never
}

// Device is one WireGuard key of a user.
type Device struct {
	ID           ID
	User         ID
	Name         string // unique among the user's devices without regard to case
	Tags         []string
	PublicKey    Key
	PresharedKey Sealed
	Addrs        []netip.Addr // IPv4, IPv6
	Created      time.Time
	Disabled     bool
	Routes       []netip.Prefix // the Settings.Routes that its config was made with
}

// Invitation is a one-time right to enrol a device.
type Invitation struct {
	ID      ID
	Hash    [32]byte // SHA-256 of the token; the token itself is known to its holder alone
	User    ID
	Created time.Time
	Expires time.Time // once used, when it is forgotten: an hour later
	Used    time.Time // zero if not
	Device  ID        // what it was used for
	// Pending is a TOTP secret shown to one browser and not yet confirmed.
	Pending Sealed
	Browser [32]byte // SHA-256 of that browser's cookie
}

// Code is an accepted one-time code within a session.
type Code struct {
	Serial uint32 // unique among the cluster's codes; from 1 to 0xfffffeff, for it is written into marks of flows
	At     time.Time
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

// PolicyVersion is one applied policy.
type PolicyVersion struct {
	Version uint64 // 1, 2, …
	Text    string
	At      time.Time
	By      string
	Note    string
}

// Pending is a policy that is taken back unless it is confirmed in time.
type Pending struct {
	Version uint64    // the version in force
	Back    uint64    // the version whose text comes back
	Until   time.Time // when
	By      string    // the actor who applied it, and alone may confirm it
}

// Entry is a line of the audit log.
type Entry struct {
	Index  uint64 // Raft index
	At     time.Time
	Actor  string // "alice", "uid 0", "portal", "gateway"
	Action string // "user.add", "session.start"
	Target string // "alice/laptop"
	Detail string
}
