// Package conf writes what people carry away: a client's WireGuard config and its QR code.
package conf

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"

	"vpnd/peers"
)

// keepalive is how often, in seconds, a client speaks when it has nothing to say: NATs
// forget a UDP flow after 30 s at the earliest (RFC 4787, section 4.3 asks for 2 min).
const keepalive = 25

// Config is a client's WireGuard config, without its private key.
type Config struct {
	Device   peers.Device
	PSK      [32]byte
	Settings peers.Settings
}

// Text gives the wg-quick text. privateKey is the base64 of the device's private key, put
// after [Interface]; with "" the line is left out, for the browser to add.
//
// It has only keys that the Android and Apple apps accept. The routes are those that
// the device was made with, so that the text is the same whenever it is asked for.
func (c Config) Text(privateKey string) string {
	var b strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&b, "%s = %v\n", key, value) }
	b.WriteString("[Interface]\n")
	if privateKey != "" {
		line("PrivateKey", privateKey)
	}
	var own []string
	for _, a := range c.Device.Addrs {
		own = append(own, netip.PrefixFrom(a, a.BitLen()).String())
	}
	line("Address", strings.Join(own, ", "))
	if len(c.Settings.DNS) > 0 {
		var servers []string
		for _, a := range c.Settings.DNS {
			servers = append(servers, a.String())
		}
		line("DNS", strings.Join(servers, ", "))
	}
	if c.Settings.MTU != 0 {
		line("MTU", c.Settings.MTU)
	}
	b.WriteString("\n[Peer]\n")
	line("PublicKey", c.Settings.PublicKey)
	line("PresharedKey", base64.StdEncoding.EncodeToString(c.PSK[:]))
	var allowed []string
	for _, p := range append(c.Settings.Network[:len(c.Settings.Network):len(c.Settings.Network)], c.Device.Routes...) {
		allowed = append(allowed, p.String())
	}
	line("AllowedIPs", strings.Join(allowed, ", "))
	if c.Settings.Endpoint != "" {
		line("Endpoint", c.Settings.Endpoint)
	}
	line("PersistentKeepalive", keepalive)
	return b.String()
}

// TunnelName gives the name under which the apps know a tunnel, which is its file's
// name without ".conf": at most 15 of [a-zA-Z0-9_=+.-], as wg-quick(8) wants it for an
// interface. It says as much of "alice-laptop" as fits.
func TunnelName(user, device string) string {
	const most = 15
	user, _, _ = strings.Cut(user, "@")
	if room := most - 1 - len(device); len(user) > room {
		user = user[:min(len(user), max(room, 6))]
	}
	name := user + "-" + device
	if len(name) > most {
		name = name[:most]
	}
	return strings.TrimRight(name, ".-_")
}
