package control

import (
	"bytes"
	"crypto/ecdh"
	"net/netip"
	"strings"
	"testing"
	"time"

	"vpnd/acl/language"
	"vpnd/internal/control/controltest"
	"vpnd/peers"
)

func TestBootstrap(t *testing.T) {
	w := newWorld(t)
	set, _ := w.View().Settings()
	private, err := w.sealer.GatewayKey(set)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil || !bytes.Equal(k.PublicKey().Bytes(), set.PublicKey[:]) {
		t.Errorf("the public key is not of the private one: %v", err)
	}
	if set.URL != "https://vpn.example.com:8443" || set.Session != 12*time.Hour || !set.Masquerade || set.Endpoint != "vpn.example.com:51820" {
		t.Errorf("settings: url %s, session %v, masquerade %v, endpoint %s", set.URL, set.Session, set.Masquerade, set.Endpoint)
	}
	if n := set.Network; len(n) != 2 || n[0].String() != "10.77.0.0/16" || n[1].Bits() != 64 || n[1].Addr().As16()[0] != 0xfd {
		t.Errorf("network %v", set.Network)
	}
	if p := w.View().Policy(); p == nil || p.Version != 1 || p.Text != language.DefaultPolicy() {
		t.Errorf("first policy %v", p)
	}
	other := newWorld(t)
	if o, _ := other.View().Settings(); o.Network[1] == set.Network[1] || o.Cluster == set.Cluster {
		t.Error("two clusters share an id or an IPv6 network")
	}
}

func TestBootstrapAgain(t *testing.T) {
	w := newWorld(t)
	before, _ := w.View().Settings()
	again := func(c BootstrapConfig) error {
		first, err := Bootstrap(t.Context(), w.store, w.sealer, c)
		if first {
			t.Error("made a second time")
		}
		return err
	}
	if err := again(BootstrapConfig{}); err != nil {
		t.Fatal(err)
	}
	if n := controltest.Proposed[peers.Configure](w.store); n != 0 {
		t.Errorf("%d changes of settings without a flag", n)
	}
	if err := again(BootstrapConfig{Endpoint: "vpn.example.com:51820", URL: before.URL + "/", Network: before.Network, Session: 12 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	if n := controltest.Proposed[peers.Configure](w.store); n != 0 {
		t.Errorf("%d changes of settings with flags as they are", n)
	}
	routes := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	if err := again(BootstrapConfig{Endpoint: "192.0.2.9:51821", URL: "https://portal.example.com", Routes: routes, Session: time.Hour}); err != nil {
		t.Fatal(err)
	}
	set, _ := w.View().Settings()
	if set.Endpoint != "192.0.2.9:51821" || set.URL != "https://portal.example.com" || len(set.Routes) != 1 || set.Session != time.Hour ||
		set.PublicKey != before.PublicKey {
		t.Errorf("settings %s %s %v %v", set.Endpoint, set.URL, set.Routes, set.Session)
	}
	if err := again(BootstrapConfig{Network: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}}); err == nil || !strings.Contains(err.Error(), "10.77.0.0/16") {
		t.Errorf("another network: %v", err)
	}
	wrong, err := NewSealer(bytes.Repeat([]byte{9}, 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Bootstrap(t.Context(), w.store, wrong, BootstrapConfig{}); err == nil || !strings.Contains(err.Error(), "sealing key") {
		t.Errorf("with another sealing key: %v", err)
	}
}

func TestBootstrapRefuses(t *testing.T) {
	sealer, err := NewSealer(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]BootstrapConfig{
		"no endpoint":  {},
		"no port":      {Endpoint: "vpn.example.com"},
		"http":         {Endpoint: "a.example:1", URL: "http://a.example"},
		"a path":       {Endpoint: "a.example:1", URL: "https://a.example/x"},
		"two of IPv4":  {Endpoint: "a.example:1", Network: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("10.1.0.0/16")}},
		"host bits":    {Endpoint: "a.example:1", Network: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/16")}},
		"tiny network": {Endpoint: "a.example:1", Network: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/31")}},
		"a year":       {Endpoint: "a.example:1", Session: 366 * 24 * time.Hour},
	} {
		st := controltest.NewStore()
		if first, err := Bootstrap(t.Context(), st, sealer, c); err == nil || first {
			t.Errorf("%s: %v", name, err)
		}
		if _, made := st.State().View().Settings(); made {
			t.Errorf("%s: a cluster was made", name)
		}
	}
}

func TestPortalURL(t *testing.T) {
	for _, c := range []struct {
		endpoint string
		port     uint16
		want     string
	}{
		{"vpn.example.com:51820", 0, "https://vpn.example.com:8443"}, {"192.0.2.1:51820", 443, "https://192.0.2.1"},
		{"[fd00::1]:51820", 443, "https://[fd00::1]"}, {"[fd00::1]:51820", 9443, "https://[fd00::1]:9443"},
	} {
		if got := portalURL(c.endpoint, c.port); got != c.want {
			t.Errorf("portalURL(%s, %d) = %s", c.endpoint, c.port, got)
		}
	}
}
