package control

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"vpnd/acl/language"
	"vpnd/peers"
)

const (
	defaultSession = 12 * time.Hour
	defaultPortal  = 8443
)

// BootstrapConfig are the cluster's facts as flags give them. What is left empty is made
// at the first start, and stays as it is at a later one.
type BootstrapConfig struct {
	Endpoint     string         // host:port that clients dial; needed at the first start
	URL          string         // of the public portal; from the endpoint's host
	PortalPort   uint16         // for that; 8443
	Network      []netip.Prefix // 10.77.0.0/16, and a ULA /64 when there is no IPv6
	Routes       []netip.Prefix // nil: as they are
	DNS          []netip.Addr   // nil: as they are
	Session      time.Duration  // 12 h
	NoMasquerade bool           // first start only
	Version      string         // of this vpnd, as New has it
	Now          func() time.Time
}

// Bootstrap makes the cluster when there is none (first is true then): the WireGuard key,
// the CA, the addresses, the first policy. When there is one it changes the settings that
// were given and differ. It needs a leader.
func Bootstrap(ctx context.Context, st Store, sealer *Sealer, c BootstrapConfig) (first bool, err error) {
	now := func() time.Time {
		if c.Now != nil {
			return c.Now().UTC().Round(0)
		}
		return time.Now().UTC().Round(0)
	}
	n := node{store: st, clock: now, version: c.Version}
	if set, ok := n.View().Settings(); ok {
		// The gateway's own key is the proof that this is the right sealing key.
		if _, err := sealer.GatewayKey(set); err != nil {
			return false, fmt.Errorf("%w: the sealing key is not the one that this state was made with; put that one back", err)
		}
		if err := n.upgrade(ctx); err != nil {
			return false, fmt.Errorf("raise the state's level: %w", err)
		}
		return false, reconfigure(ctx, st, now, set, c)
	}
	set, err := newSettings(sealer, c, now())
	if err != nil {
		return false, err
	}
	_, _, err = proposeTo(ctx, st, gatewayCommand(st.State().View(), now(), peers.Init{Settings: set, Policy: language.DefaultPolicy()}))
	if err != nil {
		return false, fmt.Errorf("make the cluster: %w", err)
	}
	if err := n.upgrade(ctx); err != nil {
		return false, fmt.Errorf("raise the state's level: %w", err)
	}
	return true, nil
}

// gatewayCommand is a command that nobody asked for but the gateway.
func gatewayCommand(v *peers.View, now time.Time, body peers.Body) peers.Command {
	made := v.Request(newID())
	return peers.Command{Request: made.ID, Base: made.Base, At: now, Actor: gatewayActor, Body: body}
}

// newSettings makes everything that a cluster has from its first moment.
func newSettings(sealer *Sealer, c BootstrapConfig, now time.Time) (set peers.Settings, err error) {
	if err := peers.CheckEndpoint(c.Endpoint); err != nil {
		return set, refused(err)
	}
	set = peers.Settings{
		Cluster: newID(), Created: now, Endpoint: c.Endpoint,
		Routes: c.Routes, DNS: c.DNS, Session: c.Session, Masquerade: !c.NoMasquerade,
	}
	if set.Session == 0 {
		set.Session = defaultSession
	}
	if set.URL = strings.TrimSuffix(c.URL, "/"); set.URL == "" {
		set.URL = portalURL(c.Endpoint, c.PortalPort)
	}
	if err := peers.CheckURL(set.URL); err != nil {
		return set, refused(err)
	}
	if set.Network, err = Networks(c.Network); err != nil {
		return set, err
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return set, fmt.Errorf("make the WireGuard key: %w", err)
	}
	set.PublicKey = peers.Key(key.PublicKey().Bytes())
	if set.PrivateKey, err = sealer.Seal(set.Cluster, fieldWireGuard, key.Bytes()); err != nil {
		return set, err
	}
	ca, caKey, err := newCA(set.Cluster, now)
	if err != nil {
		return set, err
	}
	set.CACert = ca
	set.CAKey, err = sealer.Seal(set.Cluster, fieldCA, caKey)
	return set, err
}

// Networks completes the tunnel's prefixes: IPv4 first, then IPv6.
func Networks(given []netip.Prefix) ([]netip.Prefix, error) {
	var v4, v6 netip.Prefix
	for _, p := range given {
		slot := &v6
		if p.Addr().Is4() {
			slot = &v4
		}
		if slot.IsValid() {
			return nil, fmt.Errorf("--network takes one IPv4 and one IPv6 prefix; %s and %s are of one family", *slot, p)
		}
		if p.Masked() != p {
			return nil, fmt.Errorf("--network %s has bits beyond its length: write %s", p, p.Masked())
		}
		*slot = p
	}
	if !v4.IsValid() {
		v4 = netip.MustParsePrefix("10.77.0.0/16")
	}
	if !v6.IsValid() {
		// RFC 4193: fd, 40 random bits, 16 bits of subnet (random too: it is the only one).
		var a [16]byte
		if _, err := rand.Read(a[1:8]); err != nil {
			return nil, fmt.Errorf("make an IPv6 network: %w", err)
		}
		a[0] = 0xfd
		v6 = netip.PrefixFrom(netip.AddrFrom16(a), 64)
	}
	return []netip.Prefix{v4, v6}, nil
}

// reconfigure carries given flags into existing settings.
func reconfigure(ctx context.Context, st Store, now func() time.Time, set peers.Settings, c BootstrapConfig) error {
	for _, p := range c.Network {
		if !slices.Contains(set.Network, p.Masked()) {
			return fmt.Errorf("--network %s is not the network of this gateway (%s), and every config that people have names that one: leave the flag out",
				p, joinStrings(set.Network))
		}
	}
	var change peers.Configure
	if c.Endpoint != "" && c.Endpoint != set.Endpoint {
		change.Endpoint = &c.Endpoint
	}
	if u := strings.TrimSuffix(c.URL, "/"); u != "" && u != set.URL {
		change.URL = &u
	}
	if c.Routes != nil && !slices.Equal(c.Routes, set.Routes) {
		change.Routes = &c.Routes
	}
	if c.DNS != nil && !slices.Equal(c.DNS, set.DNS) {
		change.DNS = &c.DNS
	}
	if c.Session != 0 && c.Session != set.Session {
		if err := sessionFits(st.State().View(), c.Session); err != nil {
			return err
		}
		change.Session = &c.Session
	}
	if change == (peers.Configure{}) {
		return nil
	}
	if _, _, err := proposeTo(ctx, st, gatewayCommand(st.State().View(), now(), change.For(st.State().View()))); err != nil {
		return fmt.Errorf("change the settings: %w", err)
	}
	return nil
}

// portalURL is https on the endpoint's host.
func portalURL(endpoint string, port uint16) string {
	host, _, _ := net.SplitHostPort(endpoint)
	if port == 0 {
		port = defaultPortal
	}
	if port == 443 {
		if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
			host = "[" + host + "]"
		}
		return "https://" + host
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(int(port)))
}

func joinStrings[T fmt.Stringer](list []T) string {
	out := ""
	for i, v := range list {
		if i > 0 {
			out += ", "
		}
		out += v.String()
	}
	return out
}
