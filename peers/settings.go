package peers

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
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
	Masquerade bool   // what a device sends to a resource comes from the gateway's address
	MTU        uint16 // of the tunnel, in bytes; 0: the gateway's own line says
}

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
	MTU        uint16         `cbor:"14,keyasint,omitempty"` // from level 2
}

// MarshalCBOR gives the canonical encoding.
func (s Settings) MarshalCBOR() ([]byte, error) {
	if err := checkTime(s.Created); err != nil {
		return nil, err
	}
	return encMode.Marshal(wireSettings{s.Cluster, stampOf(s.Created), s.PrivateKey, s.PublicKey, s.CAKey, s.CACert,
		s.Network, s.Endpoint, s.URL, s.Routes, s.DNS, s.Session, s.Masquerade, s.MTU})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (s *Settings) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wireSettings](b)
	*s = Settings{w.Cluster, w.Created.time(), w.PrivateKey, w.PublicKey, w.CAKey, w.CACert,
		w.Network, w.Endpoint, w.URL, w.Routes, w.DNS, w.Session, w.Masquerade, w.MTU}
	return err
}

// Init makes the cluster. It is the first command of every log, and refused ever after.
type Init struct {
	Settings Settings `cbor:"1,keyasint"`
	Policy   string   `cbor:"2,keyasint,omitempty"`
}

func (c Init) apply(t *tx) (Result, error) {
	if t.m.Settings != nil {
		return Result{}, refuse("cluster_exists", t.m.Settings.Cluster)
	}
	s := c.Settings
	if s.MTU != 0 && t.m.Level < levelAnswers {
		return Result{}, refuse("level_needed", levelAnswers, t.m.Level)
	}
	if err := checkSettings(&s); err != nil {
		return Result{}, err
	}
	if err := checkKey(s.PublicKey); err != nil {
		return Result{}, err
	}
	if err := checkText("policy", c.Policy, maxPolicy); err != nil {
		return Result{}, err
	}
	t.m.Settings = &s
	t.m.settingsAt = t.index
	t.m.NextHost = firstHost
	p := t.addPolicy(c.Policy, "", nil)
	t.audit("cluster.init", s.Cluster.String(), "network "+prefixes(s.Network))
	return Result{Policy: p}, nil
}

// Configure changes settings: nil fields stay as they are.
type Configure struct {
	Endpoint   *string         `cbor:"1,keyasint,omitempty"`
	URL        *string         `cbor:"2,keyasint,omitempty"`
	Routes     *[]netip.Prefix `cbor:"3,keyasint,omitempty"`
	DNS        *[]netip.Addr   `cbor:"4,keyasint,omitempty"`
	Session    *time.Duration  `cbor:"5,keyasint,omitempty"`
	Masquerade *bool           `cbor:"6,keyasint,omitempty"`
	MTU        *uint16         `cbor:"7,keyasint,omitempty"`
}

// ConfigureV1 is Configure as it was before level 2.
type ConfigureV1 struct {
	Endpoint *string         `cbor:"1,keyasint,omitempty"`
	URL      *string         `cbor:"2,keyasint,omitempty"`
	Routes   *[]netip.Prefix `cbor:"3,keyasint,omitempty"`
	DNS      *[]netip.Addr   `cbor:"4,keyasint,omitempty"`
	Session  *time.Duration  `cbor:"5,keyasint,omitempty"`
}

// For gives the command in the form that the state of v takes. What only a newer level
// has is not left out: then v does not take it.
func (c Configure) For(v *View) Body {
	if v.Takes(c) || c.Masquerade != nil || c.MTU != nil {
		return c
	}
	return ConfigureV1{c.Endpoint, c.URL, c.Routes, c.DNS, c.Session}
}

func (c ConfigureV1) apply(t *tx) (Result, error) {
	return Configure{c.Endpoint, c.URL, c.Routes, c.DNS, c.Session, nil, nil}.apply(t)
}

func (c Configure) apply(t *tx) (Result, error) {
	s := *t.m.Settings
	var changes []string
	if c.Endpoint != nil && *c.Endpoint != s.Endpoint {
		if err := CheckEndpoint(*c.Endpoint); err != nil {
			return Result{}, err
		}
		s.Endpoint = *c.Endpoint
		changes = append(changes, "endpoint "+s.Endpoint)
	}
	if c.URL != nil && *c.URL != s.URL {
		if err := CheckURL(*c.URL); err != nil {
			return Result{}, err
		}
		s.URL = *c.URL
		changes = append(changes, "url "+s.URL)
	}
	if c.Routes != nil && !slices.Equal(*c.Routes, s.Routes) {
		if err := checkRoutes(*c.Routes, s.Network); err != nil {
			return Result{}, err
		}
		s.Routes = *c.Routes
		changes = append(changes, "routes "+orNone(prefixes(s.Routes)))
	}
	if c.DNS != nil && !slices.Equal(*c.DNS, s.DNS) {
		if err := checkDNS(*c.DNS); err != nil {
			return Result{}, err
		}
		s.DNS = *c.DNS
		var list []string
		for _, a := range s.DNS {
			list = append(list, a.String())
		}
		changes = append(changes, "dns "+orNone(strings.Join(list, ",")))
	}
	if c.Session != nil && *c.Session != s.Session {
		if err := checkSession(*c.Session); err != nil {
			return Result{}, err
		}
		s.Session = *c.Session
		changes = append(changes, "session "+s.Session.String())
	}
	if c.Masquerade != nil && *c.Masquerade != s.Masquerade {
		s.Masquerade = *c.Masquerade
		changes = append(changes, "masquerade "+onOff(s.Masquerade))
	}
	if c.MTU != nil && *c.MTU != s.MTU {
		if err := checkMTU(*c.MTU, s.Network); err != nil {
			return Result{}, err
		}
		s.MTU = *c.MTU
		changes = append(changes, "mtu "+orAuto(s.MTU))
	}
	if len(changes) == 0 {
		return Result{}, nil
	}
	t.m.Settings = &s
	t.m.settingsAt = t.index
	t.audit("settings.set", "", strings.Join(changes, "; "))
	return Result{}, nil
}

// checkSettings checks what Init brings. Endpoint and URL may still be empty.
func checkSettings(s *Settings) error {
	if s.Cluster.IsZero() {
		return refuse("cluster_no_id")
	}
	if s.PublicKey == (Key{}) {
		return refuse("cluster_no_key")
	}
	for _, secret := range []Sealed{s.PrivateKey, s.CAKey} {
		if len(secret) > maxSealed {
			return refuse("cluster_key_too_large", len(secret), maxSealed)
		}
	}
	if len(s.CACert) > maxCert {
		return refuse("cluster_ca_too_large", len(s.CACert), maxCert)
	}
	if err := checkNetwork(s.Network); err != nil {
		return err
	}
	if s.Endpoint != "" {
		if err := CheckEndpoint(s.Endpoint); err != nil {
			return err
		}
	}
	if s.URL != "" {
		if err := CheckURL(s.URL); err != nil {
			return err
		}
	}
	if err := checkRoutes(s.Routes, s.Network); err != nil {
		return err
	}
	if err := checkDNS(s.DNS); err != nil {
		return err
	}
	if err := checkMTU(s.MTU, s.Network); err != nil {
		return err
	}
	return checkSession(s.Session)
}

// checkNetwork checks the tunnel's prefixes: one of IPv4, one of IPv6, or one of each
// with IPv4 first.
func checkNetwork(network []netip.Prefix) error {
	if len(network) == 0 || len(network) > 2 {
		return refuse("network_count", len(network))
	}
	for i, p := range network {
		if err := checkPrefix("network_prefix", p); err != nil {
			return err
		}
		if i > 0 && (p.Addr().Is4() || network[0].Addr().Is6()) {
			return refuse("network_order", prefixes(network))
		}
		if p.Addr().BitLen()-p.Bits() < minPrefixHosts {
			return refuse("network_small", p, p.Addr().BitLen()-minPrefixHosts)
		}
	}
	return nil
}

// checkRoutes checks the networks behind the gateway.
func checkRoutes(routes, network []netip.Prefix) error {
	if len(routes) > maxRoutes {
		return refuse("routes_limit", len(routes), maxRoutes)
	}
	for i, p := range routes {
		if err := checkPrefix("route_prefix", p); err != nil {
			return err
		}
		if slices.Contains(routes[:i], p) {
			return refuse("route_twice", p)
		}
		// 0.0.0.0/0 contains the network and is meant; a part of the network is not.
		for _, n := range network {
			if n.Overlaps(p) && n.Bits() <= p.Bits() {
				return refuse("route_inside", p, n)
			}
		}
	}
	return nil
}

func checkPrefix(code string, p netip.Prefix) error {
	if !p.IsValid() || p.Addr().Is4In6() || p != p.Masked() || p.Addr().IsMulticast() {
		return refuse(code, p)
	}
	return nil
}

func checkDNS(servers []netip.Addr) error {
	if len(servers) > maxDNS {
		return refuse("dns_limit", len(servers), maxDNS)
	}
	for _, a := range servers {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return refuse("dns_invalid", a)
		}
	}
	return nil
}

// checkMTU checks a tunnel's MTU that is set by hand. IPv6 needs 1280 bytes (RFC 8200,
// section 5), IPv4 works with 576.
func checkMTU(mtu uint16, network []netip.Prefix) error {
	least := uint16(minMTU4)
	if slices.ContainsFunc(network, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		least = minMTU6
	}
	if mtu != 0 && (mtu < least || mtu > maxMTU) {
		return refuse("mtu_invalid", mtu, least, maxMTU)
	}
	return nil
}

func checkSession(d time.Duration) error {
	if d < minSession || d > maxSession {
		return refuse("session_length", d, minSession, maxSession)
	}
	return nil
}

// prefixes writes a list as flags take it.
func prefixes(list []netip.Prefix) string {
	var b strings.Builder
	for i, p := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, p)
	}
	return b.String()
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func orAuto(mtu uint16) string {
	if mtu == 0 {
		return "auto"
	}
	return strconv.Itoa(int(mtu))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// Settings returns the cluster's settings; ok is false before Init.
func (v *View) Settings() (s Settings, ok bool) {
	if v.m.Settings == nil {
		return Settings{}, false
	}
	return *v.m.Settings, true
}
