// Package dataplane is what a gateway does with packets: WireGuard peers, sessions
// and the filter. A Plane is told what should be, finds out what is, and changes the
// difference. It decides nothing: roles and verdicts come from package rules, and who exists
// comes from peers.
package dataplane

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// Key is a Curve25519 key or a preshared key, 32 bytes.
type Key [32]byte

// Device is an enabled device of an enabled user: a WireGuard peer.
type Device struct {
	ID           string // the device's id in State
	Name         string // "alice/laptop", for messages
	PublicKey    Key
	PresharedKey Key          // secret
	Addrs        []netip.Addr // its AllowedIPs, as single addresses
}

// Code is an accepted one-time code. Serial is unique among all codes of the cluster
// and never zero: the linux plane writes it into the mark of the flows that it opens.
type Code struct {
	Serial uint32
	At     time.Time
}

// Session is a device's bounded right to pass. It exists only while it lives: the
// plane ends it at Until by itself, in the kernel where there is one.
type Session struct {
	Device string // Device.ID
	Addrs  []netip.Addr
	Until  time.Time
	// Codes, oldest first, are the accepted codes that matter to freshness: the first
	// opened the session, the last is the newest. For a grant with freshness f, a flow
	// lives as long as the chain of codes, each less than f after the one before, that
	// it was opened in.
	Codes []Code
}

// Gateway is the identity and the addresses of the tunnel's near end.
type Gateway struct {
	PrivateKey Key            // secret
	Listen     netip.AddrPort // UDP; an unspecified address means all
	Addrs      []netip.Addr   // the gateway's tunnel addresses
	Network    []netip.Prefix // the tunnel's prefixes
	Routes     []netip.Prefix // networks behind the gateway
	Masquerade bool           // hide the clients' addresses behind the gateway's
	MTU        int            // of the tunnel, in bytes; 0: what the host's own line carries
}

// Service is a published resource at its service addresses, which lie in the upper half of
// the tunnel's network, on no interface: who may open what there is the Ruleset's to say, by
// the service address; this says where it leads.
type Service struct {
	Name  string          // the resource's
	Addrs []netip.Addr    // at most one of each family
	Ports []language.Span // TCP and UDP, sorted and disjoint; nothing else leads anywhere
	// ToPort is the target's port for the only port of Ports; 0: every port is the target's, too.
	ToPort uint16
	// Hosts are the target's addresses, the one to take first; empty while nobody knows where
	// it is, or where Path is the target: then flows that are permitted are refused.
	Hosts []netip.Addr
	Path  string // of a unix socket of the gateway's own host
	// ProxyV2 tells a TCP target who is calling, by the PROXY protocol.
	ProxyV2 bool
	// FromGateway dials a target on the gateway's own host from the gateway's tunnel address
	// instead of one of 127/8 that stands for the device.
	FromGateway bool
}

// State is the whole desired state.
type State struct {
	Gateway  Gateway
	Devices  []Device
	Sessions []Session
	Rules    *rules.Ruleset
	Services []Service // sorted by name
}

// Change is a difference to the desired state. Where the same device stands in both
// lists of a kind, the removal happens first. Whatever closes takes effect before
// whatever opens; Update returns when all of it holds, and tracked flows that lost
// their permission are dead.
type Change struct {
	PutDevices    []Device  // added, changed, or moved in the policy: matched by PublicKey
	RemoveDevices []Device  // PublicKey, ID and Addrs are used
	PutSessions   []Session // opened or renewed: matched by Addrs
	EndSessions   []Session // Addrs and Codes are used
	// Rules is the policy; nil: as before. One that With or Regroup have made of the former
	// says something else of devices in PutDevices alone.
	Rules *rules.Ruleset
	// Services are all of them; nil: as before. A target that moved moves new flows alone.
	Services []Service
}

// Flow names a flow by its first packet.
type Flow struct {
	Src, Dst netip.Addr
	Proto    uint8  // IP protocol number
	DstPort  uint16 // 0 where the protocol has no ports
}

// Stats are live readings.
type Stats struct {
	Plane   string // "linux" or "netstack"
	Detail  string // one line for people: which WireGuard, which kernel features, what it cannot do
	Peers   map[Key]PeerStats
	Filters []Complaint
}

// Complaint is what is in the plane's way: a chain of somebody else's that drops what we
// accept, or, where Table is empty, what could not be seen or done.
type Complaint struct {
	Table string // "inet filter"
	Chain string // "input (policy drop)"
	What  string // what it drops; without a table the whole complaint
	Line  string // to add, so that it passes
}

// String is one line for people.
func (c Complaint) String() string {
	if c.Table == "" {
		return c.What
	}
	return fmt.Sprintf("table %s, chain %s drops %s: %s", c.Table, c.Chain, c.What, c.Line)
}

// Complaints makes complaints of plain lines.
func Complaints(lines ...string) (out []Complaint) {
	for _, l := range lines {
		out = append(out, Complaint{What: l})
	}
	return out
}

// PeerStats are the readings of one WireGuard peer.
type PeerStats struct {
	Endpoint      netip.AddrPort
	Local         netip.Addr // the address of ours that it knows, where we know it
	LastHandshake time.Time
	Received      int64 // bytes from the peer
	Sent          int64 // bytes to the peer
}

// Sighting is where a peer was last heard from.
type Sighting struct {
	Key      Key // public
	Endpoint netip.AddrPort
	Local    netip.Addr // the address of ours that it knows; invalid: as routing chooses
}

// Recall names the peers that a former process had sessions with, those with traffic first.
// After the first Set the plane shakes hands with them, not before After: peers refuse a
// handshake whose time is not above that of the last one.
type Recall struct {
	Peers []Sighting
	After time.Time
}

// Drift is something that was changed by hand and has been put right.
type Drift struct {
	What string // "table vpnd", "peer ALICE…", as a person would name it
	Was  string // "removed", "added", "changed"
}

// Plane is a data plane. Its methods may be called concurrently.
type Plane interface {
	// Set makes s the desired state. Repeating it is cheap and interrupts nothing.
	Set(ctx context.Context, s State) error
	// Update changes the desired state by c. Its cost depends on c alone.
	Update(ctx context.Context, c Change) error
	// Permits tells whether the first packet of a new flow would pass at this moment, by
	// what the plane enforces and not by what it was told.
	Permits(ctx context.Context, f Flow) (bool, error)
	// Stats reads counters; for one peer, name its key, for all, name none.
	Stats(ctx context.Context, keys ...Key) (Stats, error)
	// Listen returns a listener that only the tunnel can reach, on the gateway's
	// tunnel addresses at port 80. Connections to port 80 elsewhere, and to Config's
	// app port, come out of it too when the device has no session.
	Listen(ctx context.Context) (net.Listener, error)
	// Close takes everything of ours away from the host. A plane that was never
	// closed leaves the host closed.
	Close() error
}

// Config is what both planes need to start.
type Config struct {
	Interface string // linux: the tunnel's interface
	Portal    uint16 // the public portal's TCP port, for complaints about who drops its packets; 0: none
	AppPort   uint16 // the protected app's TCP port on the gateway's tunnel addresses
	AppSocket string // netstack: the unix socket to which AppPort is relayed with PROXY v2
	Flows     int    // netstack: flows at once, each a socket of the host; 0: 32,768
	Relay     int    // linux: connections, and flows of datagrams, to services that are relayed, at once; 0: 10,240
	// Own lists the daemon's own listeners, which netstack never dials.
	Own    []netip.AddrPort
	Recall Recall
	// LocalTarget tells whether a service may lead to what is on this host: to a socket's path
	// (then target is not valid), or to an address and port; nil: to nothing. Its error says
	// to people what to do.
	LocalTarget func(network string, target netip.AddrPort, path string) error
	// OnDrift is called, outside of any lock, for each thing that was put right.
	OnDrift func(Drift)
	// Log is the daemon's log.
	Log *slog.Logger
}
