package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/line"
	"vpnd/internal/owner"
	"vpnd/peers"
)

// has checks that exactly these codes were found, and that no text has a hole left.
func has(t *testing.T, found []*Finding, want ...string) {
	t.Helper()
	var got []string
	for _, f := range found {
		got = append(got, f.Code)
		if strings.ContainsAny(f.Text+f.Remedy, "{}\n") {
			t.Errorf("%s: %q, %q", f.Code, f.Text, f.Remedy)
		}
	}
	if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("found %v, want %v: %v", got, want, found)
	}
}

// Every code stands in the documentation.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range Codes() {
		if !strings.Contains(string(page), "`"+c+"`") {
			t.Errorf("docs/operations.md has no %s", c)
		}
		if s := sorts[c]; (s.remedy == "") != (s.severity == OK) {
			t.Errorf("%s: %s with the remedy %q", c, s.severity, s.remedy)
		}
	}
}

func TestEndpoint(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("10.0.5.2"), netip.MustParseAddr("203.0.113.9")}
	nat := own[:1]
	lookup := func(_ context.Context, _, host string) ([]netip.Addr, error) {
		switch host {
		case "here.example":
			return []netip.Addr{netip.MustParseAddr("203.0.113.9")}, nil
		case "far.example":
			return []netip.Addr{netip.MustParseAddr("203.0.113.77")}, nil
		case "deaf.example":
			return nil, &net.DNSError{Err: "i/o timeout", IsTimeout: true}
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	for _, c := range []struct {
		endpoint string
		given    bool
		own      []netip.Addr
		want     []string
	}{
		{"here.example:51820", false, own, []string{"endpoint_ok"}},
		{"203.0.113.9:51820", false, own, []string{"endpoint_ok"}},
		{"far.example:51820", false, own, []string{"endpoint_other"}},
		{"far.example:51820", false, nat, []string{"endpoint_nat"}},
		{"none.example:51820", false, own, []string{"endpoint_unnamed"}},
		{"deaf.example:51820", false, own, []string{"endpoint_unnamed"}},
		{"10.0.5.2:51820", false, nat, []string{"endpoint_private"}},
		{"10.0.5.2:51820", true, nat, []string{"endpoint_local"}},
		{"192.168.7.7:51820", false, nat, []string{"endpoint_local"}},
		{"203.0.113.9:443", false, own, []string{"endpoint_ok", "endpoint_port"}},
		{"", false, own, []string{"endpoint_none"}},
	} {
		t.Run(c.endpoint, func(t *testing.T) {
			has(t, Endpoint(t.Context(), c.endpoint, c.given, 51820, c.own, lookup), c.want...)
		})
	}
}

func TestClock(t *testing.T) {
	for want, f := range map[string]func() (int, int32, error){
		"clock_ok":     func() (int, int32, error) { return 0, 0, nil },
		"clock_free":   func() (int, int32, error) { return timeError, unix.STA_UNSYNC, nil },
		"clock_unseen": func() (int, int32, error) { return 0, 0, unix.EPERM },
	} {
		has(t, Clock(f), want)
	}
}

// Each write takes as long as the disk does.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	for _, f := range Disk(dir, syncFile) { // whatever this machine's disk is like
		if f.Code == "disk_broken" {
			t.Error(f)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
	slowly := func(string) error { time.Sleep(diskPatient + 10*time.Millisecond); return nil }
	has(t, Disk(dir, slowly), "disk_slow")
	has(t, Disk(filepath.Join(dir, "none"), syncFile), "disk_broken")
	has(t, Disk("/proc", func(string) error { return errors.New("read-only") }), "disk_broken", "disk_full") // procfs has no room
}

func TestCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	look := func(left time.Duration, name string, own bool) []*Finding {
		c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-90 * 24 * time.Hour), NotAfter: now.Add(left), DNSNames: []string{name}}
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		g := &Gateway{Now: now, OwnCA: own, Settings: peers.Settings{URL: "https://vpn.example.org:8443"}}
		if g.Cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		return g.certificate(t.Context())
	}
	const day = 24 * time.Hour
	has(t, look(60*day, "vpn.example.org", false), "certificate_ok")
	has(t, look(15*day, "vpn.example.org", false), "certificate_soon")
	has(t, look(3*day, "vpn.example.org", false), "certificate_ends")
	has(t, look(3*day, "vpn.example.org", true), "certificate_ok")
	has(t, look(-day, "vpn.example.org", true), "certificate_ended")
	has(t, look(60*day, "other.example.org", false), "certificate_other")
	has(t, (&Gateway{Authority: []string{"no certificate yet: HTTP 400"}}).certificate(t.Context()), "certificate_refused")
	has(t, (&Gateway{CertErr: errors.New("no file")}).certificate(t.Context()), "certificate_none")
}

func TestWays(t *testing.T) {
	has(t, Homes(prefixes("10.77.0.0/16"), prefixes("172.20.0.0/16", "10.0.0.0/8")))
	has(t, Homes(prefixes("10.0.0.0/16"), prefixes("192.168.1.0/24")), "network_home", "route_home")
	way := line.Line{MTU4: 1400, Name: "eth0"}
	has(t, []*Finding{MTU(way, 0, false)}, "mtu_ok")
	has(t, []*Finding{MTU(way, 1420, false)}, "mtu_large")

	root := t.TempDir()
	set := func(iface, name, value string) {
		dir := filepath.Join(root, "net/ipv4/conf", iface)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name), []byte(value+"\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range []string{"vpn0", "eth0", "eth1", "all"} {
		set(i, "forwarding", "1")
		set(i, "rp_filter", "0")
		set(i, "src_valid_mark", "0")
	}
	outs := []string{"eth0"}
	has(t, Forwarding(root, "vpn0", outs), "forwarding_ok")
	has(t, ReversePath(root, outs, []string{"eth0", "eth1"}), "rp_filter_ok")
	set("eth0", "forwarding", "0")
	has(t, Forwarding(root, "vpn0", outs), "forwarding_off")
	set("eth0", "rp_filter", "1")
	has(t, ReversePath(root, outs, []string{"eth0", "eth1"}), "rp_filter_drops", "rp_filter_strict")
	set("eth0", "src_valid_mark", "1")
	has(t, ReversePath(root, outs, []string{"eth0"}), "rp_filter_ok")
}

// The port's real sockets are seen, by the kernel's own tables.
func TestPort(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	at := c.LocalAddr().(*net.UDPAddr).AddrPort()
	has(t, Port("/proc/net", at), "port_ok")
	has(t, Port("/proc/net", netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port())), "port_shared")
	c.Close()
	has(t, Port("/proc/net", at), "port_closed")
}

func TestWireGuardConfs(t *testing.T) {
	dir := t.TempDir()
	text := "[Interface]\nAddress = 10.77.3.1/24, fd00::1\nListenPort = 51820 # usual\n"
	if err := os.WriteFile(filepath.Join(dir, "wg0.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	has(t, WireGuardConfs(dir, 51820, prefixes("10.77.0.0/16")), "wgconf_port", "wgconf_net")
	has(t, WireGuardConfs(dir, 51821, prefixes("10.78.0.0/16")))
}

// What internal/owner says of a real file has its command apart.
func TestFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sealing.key")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chmod(file, 0o644)); err != nil {
		t.Fatal(err)
	}
	_, err := owner.Self().Read(file, "the sealing key", owner.Access{}, 100)
	if err == nil {
		t.Fatal("it was read")
	}
	g := &Gateway{Files: []error{err}}
	has(t, g.files(t.Context()), "files_wrong")
	if f := g.files(t.Context())[0]; f.Remedy != "chmod 600 "+file {
		t.Errorf("remedy %q of %q", f.Remedy, f.Text)
	}
	has(t, (&Gateway{Files: []error{errors.New("no such file")}}).files(t.Context()), "files_other")
	has(t, (&Gateway{}).files(t.Context()), "files_ok")
}

// The state's findings, on a real state: of level 1 with a key that level 2 refuses, a policy of
// a former vpnd's, a clock that was ahead, and a plane that has not got all of it.
func TestState(t *testing.T) {
	st := peers.New()
	now := time.Now().UTC().Round(0)
	index, n := uint64(0), byte(0)
	id := func() peers.ID { n++; return peers.ID{n} }
	apply := func(at time.Time, b peers.Body) {
		t.Helper()
		raw, err := peers.Encode(peers.Command{At: at, Actor: "test", Body: b})
		if err != nil {
			t.Fatal(err)
		}
		index++
		if r, err := st.Apply(index, raw); err != nil || r.Err != nil {
			t.Fatal(err, r.Err)
		}
	}
	const stored = `{"grants": [{"src": ["10.0.0.0/8", "autogroup:member"], "dst": ["autogroup:self"], "ip": ["tcp:22"]}]}`
	settings := peers.Settings{
		Cluster: id(), Created: now, PrivateKey: peers.Sealed{1}, CAKey: peers.Sealed{1}, CACert: []byte{1}, PublicKey: peers.Key{1: 1},
		Network: prefixes("10.77.0.0/16", "fd77::/64"), Endpoint: "192.0.2.1:51820", URL: "https://192.0.2.1:8443", Session: time.Hour,
	}
	apply(now, peers.Init{Settings: settings, Policy: stored})
	alice := id()
	apply(now, peers.UserAdd{ID: alice, Name: "alice"})
	apply(now, peers.DeviceAdd{User: alice, Device: peers.NewDevice{ID: id(), Name: "odd", PublicKey: peers.Key{1: 7, 31: 0x80}, PresharedKey: peers.Sealed{1}}})
	look := func() *Gateway {
		v := st.View()
		g := &Gateway{Now: now, View: v, Leader: true, Applied: v.Index()}
		for d := range v.SecondSpellings() {
			g.Spellings = append(g.Spellings, v.User(d.User).Name+"/"+d.Name)
		}
		o := v.PolicyOptions()
		o.Stored = true
		r, err := rules.Compile(language.ParseStored([]byte(v.Policy().Text)), o, nil)
		if err != nil {
			t.Fatal(err)
		}
		g.Ignored = r.Policy().Ignored()
		return g
	}
	g := look()
	has(t, g.state(t.Context()), "key_spelling", "policy_ignored")
	if got := g.state(t.Context())[0].Remedy; got != "vpnctl device rotate alice/odd" {
		t.Errorf("remedy %q", got)
	}
	apply(now, peers.PolicyApplyV1{Text: "{}", Base: 1})
	apply(now, peers.DeviceRotate{Device: peers.ID{3}, PublicKey: peers.Key{1: 9}, PresharedKey: peers.Sealed{1}})
	has(t, look().state(t.Context()))
	behind := look()
	apply(now.Add(time.Hour), peers.Note{Action: "test", Target: "later"})
	behind.View = st.View()
	has(t, behind.state(t.Context()), "plane_behind")
	has(t, behind.clock(t.Context()), "clock_behind")
	alone := look()
	alone.Leader = false
	has(t, alone.state(t.Context()), "leader_none")
}

func TestSelfTestStops(t *testing.T) {
	for want, err := range map[string]error{
		"self_test_ok": nil, "self_test_handshake": ErrNoHandshake, "self_test_page": fmt.Errorf("%w: %w", ErrNoPage, io.EOF),
		"self_test_unknown": errors.New("nobody leads"),
	} {
		g := &Gateway{SelfTest: func(context.Context) error { return err }}
		has(t, g.selfTest(t.Context()), want)
		if f := g.selfTest(t.Context())[0]; want == "self_test_page" && !strings.HasSuffix(f.Text, "got no page: EOF") {
			t.Error(f.Text)
		}
	}
	if (&Gateway{}).selfTest(t.Context()) != nil {
		t.Error("without a client it says something")
	}
}

// Docker's rules as filter's own test has them; here what is made of the complaint.
func TestComplaints(t *testing.T) {
	const line = "iptables -I DOCKER-USER -i vpn0 -j ACCEPT"
	docker := dataplane.Complaint{Table: "ip filter", Chain: "FORWARD (policy drop)", What: "what comes from vpn0 for the networks behind: all", Line: line}
	f := Complaints([]dataplane.Complaint{docker, {What: "the tables of others could not be read, so they may drop what the gateway accepts: EPERM"}})
	has(t, f, "firewall_drops", "firewall_unread")
	if f[0].Remedy != line || f[0].Text != "table ip filter, chain FORWARD (policy drop) drops "+docker.What {
		t.Errorf("remedy %q", f[0].Remedy)
	}
	has(t, Complaints(nil), "firewall_open")
	g := &Gateway{Plane: dataplane.Stats{Plane: "netstack"}}
	has(t, g.firewall(t.Context()), "firewall_unread")
}

func TestPlane(t *testing.T) {
	for want, g := range map[string]*Gateway{
		"plane_kernel":   {Plane: dataplane.Stats{Plane: "linux", Detail: "WireGuard of the kernel"}},
		"plane_go":       {Plane: dataplane.Stats{Plane: "linux", Detail: "wireguard-go in this process"}},
		"plane_netstack": {Plane: dataplane.Stats{Plane: "netstack", Detail: "asked for by --plane; wireguard-go inside vpnd"}},
		"plane_down":     {PlaneErr: errors.New("closed")},
	} {
		has(t, g.plane(t.Context()), want)
	}
}

// A policy whose grants are of each kind, with real listeners and without.
func TestGrants(t *testing.T) {
	own := ownAddress(t)
	l, err := net.Listen("tcp", own+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	look := func(policy string) []*Finding {
		p, err := language.Parse([]byte(policy))
		if err != nil {
			t.Fatal(err)
		}
		network := prefixes("10.77.0.0/16")
		r, err := rules.Compile(p, rules.Options{Network: network, Session: time.Hour}, []rules.Subject{
			{User: "alice", Device: "alice/phone", Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.2")}},
		})
		if err != nil {
			t.Fatal(err)
		}
		g := &Gateway{Rules: r, Settings: peers.Settings{Network: network, Routes: prefixes(own+"/32", "192.0.2.0/24")}}
		return g.grants(t.Context())
	}
	grant := func(src, dst, ip string) string {
		return `{"grants": [{"src": ["` + src + `"], "dst": ["` + dst + `"], "ip": ["` + ip + `"]}]}`
	}
	tcp := "tcp:" + l.Addr().String()[len(own+":"):]
	has(t, look(grant("alice", own, tcp)), "grants_ok", "host_ok")
	has(t, look(grant("bob", own, tcp)), "grant_idle", "host_ok")
	has(t, look(grant("alice", "10.200.0.0/16", tcp)), "grant_unrouted")
	l.Close()
	has(t, look(grant("alice", own, tcp)), "grants_ok", "host_closed")
	has(t, look(grant("alice", own, "tcp:"+deaf(t, own))), "grants_ok", "host_silent")
}

// ownAddress is an IPv4 address of this machine that a policy may name: not the loopback's.
func ownAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			return n.IP.String()
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test needs an IPv4 address beside the loopback's")
	}
	t.Skip("this machine has no IPv4 address beside the loopback's")
	return ""
}

// deaf is the port of a listener whose queue is full: the kernel drops what else would connect.
func deaf(t *testing.T, own string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(own).As4()}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(at.(*unix.SockaddrInet4).Port)
	for range 4 {
		if c, err := net.DialTimeout("tcp", own+":"+port, 100*time.Millisecond); err == nil {
			t.Cleanup(func() { c.Close() })
		}
	}
	return port
}

func TestDead(t *testing.T) {
	c, err := net.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	logs := t.TempDir()
	if err := os.WriteFile(logs+"/vpnd.log", []byte("vpnd: --cert: no such file\nfoo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, udp, _ := net.SplitHostPort(c.LocalAddr().String())
	p := Places{Data: filepath.Join(logs, "none"), LogDir: logs, WireGuard: ":" + udp, Portal: l.Addr().String()}
	found := Dead(t.Context(), p, errors.New("there is no socket"))
	found = slices.DeleteFunc(found, func(f *Finding) bool { return f.Subject == "clock" || f.Subject == "firewall" })
	has(t, found, "vpnd_down", "vpnd_log", "vpnd_port", "vpnd_port")
	if !strings.Contains(found[1].Text, "--cert: no such file") {
		t.Errorf("last words: %q", found[1].Text)
	}
	has(t, Dead(t.Context(), p, errors.New("permission denied")), "vpnd_denied")
}

func TestForeign(t *testing.T) {
	for a, want := range map[string]bool{
		"203.0.113.1": true, "2001:db8::1": true, "10.1.1.1": false, "192.168.1.1": false, "100.64.0.1": false,
		"fd00::1": false, "fe80::1": false, "127.0.0.1": false,
	} {
		if foreign(netip.MustParseAddr(a)) != want {
			t.Errorf("%s: %v", a, !want)
		}
	}
}

// A dead daemon's places are those that it would read itself: variable, file, default.
func TestPlaces(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vpnd.toml")
	if err := os.WriteFile(file, []byte("data = \"/srv/vpnd\"\nwireguard = \":443\"\nacme = \"a@example.org\"\nnetwork = [\"10.0.0.0/16\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"VPND_CONFIG": file}
	look := func() string {
		p := Defaults(func(n string) string { return env[n] })
		return p.Data + " " + p.WireGuard + " " + p.Portal
	}
	if got := look(); got != "/srv/vpnd :443 :443" {
		t.Errorf("by the file: %s", got)
	}
	env["VPND_DATA"], env["VPND_WIREGUARD"], env["VPND_PORTAL"] = "/data", ":1000", "127.0.0.1:2000"
	if got := look(); got != "/data :1000 127.0.0.1:2000" {
		t.Errorf("by variables: %s", got)
	}
	env = map[string]string{"VPND_CONFIG": "/none"}
	if got := look(); got != "/var/lib/vpnd :51820 :8443" {
		t.Errorf("by default: %s", got)
	}
}

// The hosts that were not tried are named.
func TestManyHosts(t *testing.T) {
	var targets []target
	for i := range mostHosts + 12 {
		targets = append(targets, target{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, 0, byte(i)}), 1), 1})
	}
	for _, f := range hosts(t.Context(), targets) {
		if f.Code == "hosts_many" {
			if !strings.HasSuffix(f.Text, "not 127.1.0.64:1, 127.1.0.65:1, 127.1.0.66:1, 127.1.0.67:1, 127.1.0.68:1, 127.1.0.69:1, 127.1.0.70:1, 127.1.0.71:1 and 4 more") {
				t.Error(f.Text)
			}
			return
		}
	}
	t.Error("nothing is said of the others")
}
