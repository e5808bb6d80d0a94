// Package rules is the compiled policy: which rules a source has, which lead to a
// destination, and the verdict on a packet.
//
// It knows packets, names, groups and times. It does no I/O, reads no clock and imports
// nothing of ours but the packages below acl. A Ruleset is the oracle: the nftables rules
// and the netstack filter are both tested against Ruleset.Verdict.
package rules

import (
	"fmt"
	"net/netip"
	"time"
)

// Subject is a device as the policy sees it.
type Subject struct {
	Device string       // "alice/laptop", unique
	User   string       // the owner's name; a tagged device is selected by its tags only
	Tags   []string     // "tag:server"; sorted
	Addrs  []netip.Addr // tunnel addresses, at most one of each family
}

// Options are the facts about the cluster that give a policy its meaning.
type Options struct {
	Network []netip.Prefix // the tunnel's prefixes
	Gateway []netip.Addr   // the gateway's tunnel addresses: the host "app"
	Session time.Duration  // session length: the default, and the most, of a grant's mfa
	// Services are the service addresses of the policy's resources, at most one of each
	// family; one that has none is reached by nobody. If nil, as where there is no gateway to
	// ask, they get the first ones of the upper half, in the order of their names.
	Services map[string][]netip.Addr

	// Users are the names of all users, so that a name that nobody has can be warned
	// about. If nil, only the owners of the subjects are known.
	Users []string
	// Stored marks a policy that is in force, or was. It is never refused again: limits do
	// not apply, an mfa longer than Session counts as Session, and names that have gone
	// select nobody. Its text is read by language.ParseStored.
	Stored bool
}

// Session is what a device's sign-in is worth. The zero Session is none.
type Session struct {
	Until time.Time // the absolute end; a packet at Until is refused
	Code  time.Time // when the last accepted code was given
}

// Packet is the first packet of a flow, or any later one seen in the flow's
// original direction: replies are judged as the flow that they answer.
type Packet struct {
	Src, Dst netip.Addr
	Proto    uint8  // IP protocol number (1 ICMP, 6 TCP, 17 UDP, 58 ICMPv6)
	DstPort  uint16 // 0 where the protocol has no ports

	// The sessions of the two ends, for those that are devices.
	SrcSession, DstSession Session
}

// Reason says why a packet was refused, for people and for the portal.
type Reason uint8

// The reasons. A grant that is out of its time is OutsideTime whatever the session is
// worth, so that NoSession and StaleCode are always cured by a code. Of several grants
// the one that is nearest to allowing speaks: PeerOffline, then StaleCode, NoSession,
// OutsideTime.
const (
	Allowed     Reason = iota
	NoGrant            // no grant of the policy covers this flow
	NoSession          // a grant covers it, once a code is given
	StaleCode          // a grant covers it, but its code is too old
	OutsideTime        // a grant covers it, at another hour or until an instant that is past
	PeerOffline        // the device at the other end has no live session
)

// Verdict is the answer to "may this packet pass now?".
type Verdict struct {
	Allow  bool
	Reason Reason
	Grant  int       // index in Ruleset.Grants of the grant that allows (the one that lasts longest), or comes nearest; -1 if none
	Until  time.Time // when this verdict, unrenewed, stops holding; zero if it does not depend on time. For OutsideTime: when the grant's hours begin again
}

// String is the reason as a sentence for the person at the source.
func (r Reason) String() string {
	switch r {
	case Allowed:
		return "allowed"
	case NoGrant:
		return "no grant of the policy covers this"
	case NoSession:
		return "a code is needed first: sign in"
	case StaleCode:
		return "a fresher code is needed: sign in again"
	case OutsideTime:
		return "granted at another time only"
	case PeerOffline:
		return "the device at the other end is not signed in"
	default:
		return fmt.Sprintf("reason %d", uint8(r))
	}
}

// Word is the reason as a word that programs may branch on.
func (r Reason) Word() string {
	words := []string{Allowed: "allowed", NoGrant: "no_grant", NoSession: "no_session", StaleCode: "stale_code",
		OutsideTime: "outside_time", PeerOffline: "peer_offline"}
	if int(r) < len(words) {
		return words[r]
	}
	return fmt.Sprintf("reason_%d", uint8(r))
}
