package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"vpnd/peers"
)

// Flags are vpnd's. Each has an environment variable and may stand in the file of --config
// under its own name; everything works without any of them.
type Flags struct {
	Config       string `help:"TOML file with flags, as data = \"/srv/vpnd\"." placeholder:"FILE" env:"VPND_CONFIG"`
	Data         string `help:"Folder of the replicated state (as root /var/lib/vpnd, else $$XDG_STATE_HOME/vpnd)." placeholder:"DIR" env:"VPND_DATA"`
	Plane        string `help:"Data plane: linux needs CAP_NET_ADMIN, netstack nothing; auto takes linux where it can." enum:"auto,linux,netstack" default:"auto" env:"VPND_PLANE"`
	Interface    string `help:"Name of the tunnel's interface (linux)." default:"vpn0" env:"VPND_INTERFACE"`
	WireGuard    string `name:"wireguard" help:"UDP address to listen on for WireGuard." default:":51820" placeholder:"ADDR:PORT" env:"VPND_WIREGUARD"`
	Endpoint     string `help:"What clients dial; found out at the first start, then kept." placeholder:"HOST:PORT" env:"VPND_ENDPOINT"`
	Network      string `help:"The tunnel's prefixes, fixed at the first start (10.77.0.0/16 and a ULA /64 of its own)." placeholder:"CIDR[,CIDR]" env:"VPND_NETWORK"`
	Routes       string `help:"Networks behind the gateway that clients reach through it; \"none\" takes them away." placeholder:"CIDR[,CIDR]" env:"VPND_ROUTES"`
	Portal       string `help:"Address of the public portal (HTTPS)." default:":8443" placeholder:"ADDR:PORT" env:"VPND_PORTAL"`
	URL          string `name:"url" help:"How people reach the public portal; made from the endpoint." placeholder:"URL" env:"VPND_URL"`
	Cert         string `help:"Certificate of the portal, reloaded when it changes; else the own CA issues one." placeholder:"FILE" env:"VPND_CERT"`
	Key          string `help:"Key of --cert." placeholder:"FILE" env:"VPND_KEY"`
	ACME         string `name:"acme" help:"Get and renew the portal's certificate from Let's Encrypt for the name in --url; the e-mail address is for its warnings. The portal then listens on port 443 unless --portal says otherwise." placeholder:"EMAIL" env:"VPND_ACME"`
	ACMEServer   string `name:"acme-directory" help:"Another authority that speaks ACME, by its directory." placeholder:"URL" env:"VPND_ACME_DIRECTORY"`
	ACMECA       string `name:"acme-ca" help:"Certificates (PEM) by which that authority's own HTTPS is trusted, instead of the host's." placeholder:"FILE" env:"VPND_ACME_CA"`
	SealingKey   string `help:"Key that seals the secrets in the state; keep a copy apart from backups (as root /etc/vpnd/sealing.key, else $$XDG_CONFIG_HOME/vpnd/sealing.key)." placeholder:"FILE" env:"VPND_SEALING_KEY"`
	LocalTargets string `name:"local-targets" help:"What resources of the policy may name on this host, beside what vpnctl resource allow has added: as localhost:3000 or /run/app.sock." placeholder:"HOST:PORT|PATH[,…]" env:"VPND_LOCAL_TARGETS"`
	Control      string `help:"Socket for vpnctl (as root /run/vpnd/control.sock, else in --data); whois.sock is made beside it." placeholder:"PATH" env:"VPND_CONTROL"`
	WhoisGroup   string `help:"Group, by name or number, that may ask whois.sock who is calling." default:"vpnd" placeholder:"GROUP" env:"VPND_WHOIS_GROUP"`
	App          string `help:"Socket of the protected app (netstack; app.sock in --data)." placeholder:"PATH" env:"VPND_APP"`
	AppPort      uint16 `help:"Port of the protected app inside the tunnel." default:"8080" env:"VPND_APP_PORT"`

	Metrics     string           `help:"Address for Prometheus, with /healthz and /readyz; off unless given. It asks nobody who he is: keep it on a loopback or a management address." placeholder:"ADDR:PORT" env:"VPND_METRICS"`
	LogFormat   string           `help:"How the log looks: text for people, logfmt or json for programs." enum:"text,logfmt,json" default:"text" env:"VPND_LOG_FORMAT"`
	LogLevel    string           `help:"The least that is logged." enum:"debug,info,warn,error" default:"info" env:"VPND_LOG_LEVEL"`
	CheckConfig bool             `help:"Check flags, environment and the file of --config, print what holds and why, and exit."`
	Version     kong.VersionFlag `help:"Print the version and exit."`
	Man         manFlag          `help:"Print vpnd(8) and exit." hidden:""`
	ManTOML     tomlFlag         `name:"man-toml" help:"Print vpnd.toml(5) and exit." hidden:""`

	args []string          // that vpnd was started with
	from map[string]string // what gave a flag its value; a flag that is not in it has its default

	wireguard netip.AddrPort
	network   []netip.Prefix
	routes    *[]netip.Prefix
}

// complete fills defaults in that depend on who runs vpnd, and checks what can be checked
// without looking at the host.
func (f *Flags) complete() (err error) {
	root := os.Geteuid() == 0
	if f.Data == "" {
		if f.Data, err = place(root, "/var/lib/vpnd", "XDG_STATE_HOME", ".local/state"); err != nil {
			return err
		}
	}
	if f.SealingKey == "" {
		dir, err := place(root, "/etc/vpnd", "XDG_CONFIG_HOME", ".config")
		if err != nil {
			return err
		}
		f.SealingKey = filepath.Join(dir, "sealing.key")
	}
	if f.Control == "" {
		f.Control = filepath.Join(f.Data, "control.sock")
		if root {
			f.Control = "/run/vpnd/control.sock"
		}
	}
	if f.App == "" {
		f.App = filepath.Join(f.Data, "app.sock")
	}
	if (f.Cert == "") != (f.Key == "") {
		return fmt.Errorf("--cert and --key belong together; give both or none")
	}
	if len(f.Interface) > 15 || f.Interface == "" || strings.ContainsAny(f.Interface, "/ \t\n:%\"") || f.Interface == "." || f.Interface == ".." {
		return fmt.Errorf("--interface %q: an interface's name has 1 to 15 characters, no space, '/', ':', '%%' or quote", f.Interface)
	}
	if f.wireguard, err = listenAddr(f.WireGuard); err != nil {
		return fmt.Errorf("--wireguard %q: %w", f.WireGuard, err)
	}
	if err := f.completeACME(); err != nil {
		return err
	}
	if _, err := listenAddr(f.Portal); err != nil {
		return fmt.Errorf("--portal %q: %w", f.Portal, err)
	}
	if f.Metrics != "" {
		if _, err := listenAddr(f.Metrics); err != nil {
			return fmt.Errorf("--metrics %q: %w", f.Metrics, err)
		}
	}
	if f.Endpoint != "" {
		if err := peers.CheckEndpoint(f.Endpoint); err != nil {
			return fmt.Errorf("--endpoint %q: clients dial HOST:PORT with a host name, an IPv4 address or an [IPv6 address], and a port from 1 to 65535", f.Endpoint)
		}
	}
	if f.URL != "" {
		f.URL = strings.TrimSuffix(f.URL, "/")
		if err := peers.CheckURL(f.URL); err != nil {
			return fmt.Errorf("--url %q: the portal's URL is https://HOST or https://HOST:PORT, without a path", f.URL)
		}
	}
	if f.Network != "" {
		if f.network, err = prefixes(f.Network); err != nil {
			return fmt.Errorf("--network: %w", err)
		}
	}
	if f.Routes != "" {
		var routes []netip.Prefix
		if f.Routes != "none" {
			if routes, err = prefixes(f.Routes); err != nil {
				return fmt.Errorf("--routes: %w", err)
			}
		}
		f.routes = &routes
	}
	return nil
}

// place is system for root, else the folder vpnd of an XDG base directory.
func place(root bool, system, xdg, underHome string) (string, error) {
	if root {
		return system, nil
	}
	if dir := os.Getenv(xdg); filepath.IsAbs(dir) {
		return filepath.Join(dir, "vpnd"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding a place for vpnd's files: %w; set %s or give --data, --sealing-key and --control", err, xdg)
	}
	return filepath.Join(home, underHome, "vpnd"), nil
}

// listenAddr reads ADDR:PORT; without an address it means all.
func listenAddr(s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("must be ADDR:PORT or :PORT")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return netip.AddrPort{}, fmt.Errorf("the port must be a number from 1 to 65535")
	}
	addr := netip.IPv6Unspecified()
	if host != "" {
		if addr, err = netip.ParseAddr(host); err != nil {
			return netip.AddrPort{}, fmt.Errorf("%q is no IP address", host)
		}
	}
	return netip.AddrPortFrom(addr, uint16(n)), nil
}

// prefixes reads CIDR[,CIDR].
func prefixes(s string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for part := range strings.SplitSeq(s, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("%q is no prefix like 10.1.0.0/16", part)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("%s has bits behind its length; %s is meant?", p, p.Masked())
		}
		out = append(out, p)
	}
	return out, nil
}

// pinned are the cluster's settings that this vpnd has flags for, with what gave them. They
// hold as long as it runs so.
func (f *Flags) pinned() map[string]string {
	out := map[string]string{}
	for _, name := range []string{"endpoint", "url", "network", "routes"} {
		if by, ok := f.from[name]; ok {
			out[name] = by
		}
	}
	return out
}

// changed names the flags that have other values in g, but the log's level.
func (f *Flags) changed(g *Flags) (names []string) {
	a, b := reflect.ValueOf(*f), reflect.ValueOf(*g)
	for i := range a.NumField() {
		field := a.Type().Field(i)
		if name, ok := strings.CutPrefix(field.Tag.Get("env"), "VPND_"); ok && field.Name != "LogLevel" && !a.Field(i).Equal(b.Field(i)) {
			names = append(names, strings.ToLower(strings.ReplaceAll(name, "_", "-")))
		}
	}
	return names
}
