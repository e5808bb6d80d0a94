package conf

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"vpnd/peers"
)

// key makes the same value of the same name.
func key(name string) peers.Key { return sha256.Sum256([]byte("key " + name)) }

func exampleConfig() Config {
	s := peers.Settings{PublicKey: key("gateway"), Endpoint: "192.0.2.1:51820",
		Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd00:77::/64")}}
	return Config{
		Device: peers.Device{Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd00:77::2")},
			Routes: []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24"), netip.MustParsePrefix("2001:db8::/32")}},
		PSK:      [32]byte{1, 2, 3},
		Settings: s,
	}
}

func TestConfigText(t *testing.T) {
	c := exampleConfig()
	want := `[Interface]
PrivateKey = PRIVATE
Address = 10.77.0.2/32, fd00:77::2/128

[Peer]
PublicKey = ` + key("gateway").String() + `
PresharedKey = AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
AllowedIPs = 10.77.0.0/16, fd00:77::/64, 192.168.7.0/24, 2001:db8::/32
Endpoint = 192.0.2.1:51820
PersistentKeepalive = 25
`
	if got := c.Text("PRIVATE"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got, want := c.Text(""), strings.Replace(want, "PrivateKey = PRIVATE\n", "", 1); got != want {
		t.Errorf("without a private key: got\n%s\nwant\n%s", got, want)
	}
	// The settings' routes of today are not the device's, and are not written to.
	c.Settings.Routes = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	if got := c.Text("PRIVATE"); got != want {
		t.Errorf("the routes are not the device's: %s", got)
	}
	c.Settings.DNS = []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd00:77::1")}
	if got := c.Text(""); !strings.Contains(got, "\nDNS = 10.77.0.1, fd00:77::1\n") {
		t.Errorf("no DNS line in\n%s", got)
	}
	c.Settings.MTU = 1280
	if got := c.Text(""); !strings.Contains(got, "fd00:77::1\nMTU = 1280\n\n[Peer]\n") {
		t.Errorf("no MTU line in\n%s", got)
	}
}

// The Android and Apple apps refuse a file with any other key.
func TestConfigHasOnlyKeysThatTheAppsKnow(t *testing.T) {
	c := exampleConfig()
	c.Settings.DNS = []netip.Addr{netip.MustParseAddr("10.77.0.1")}
	line := regexp.MustCompile(`^(?:\[Interface\]|\[Peer\]||(PrivateKey|Address|DNS|MTU|ListenPort|PublicKey|PresharedKey|AllowedIPs|Endpoint|PersistentKeepalive) = \S.*)$`)
	for l := range strings.Lines(c.Text("PRIVATE")) {
		if !line.MatchString(strings.TrimSuffix(l, "\n")) {
			t.Errorf("the line %q", l)
		}
	}
}

func TestTunnelName(t *testing.T) {
	for _, tt := range []struct{ user, device, want string }{
		{"alice", "laptop", "alice-laptop"},
		{"alice@example.com", "phone", "alice-phone"},
		{"christopher", "laptop", "christop-laptop"},
		{"christopher", "my-new-macbook", "christ-my-new-m"},
		{"al", "abcdefghijklmnopqrstuvwxyz012345", "al-abcdefghijkl"},
		{"alice", "a-b-c-d.-_x", "alice-a-b-c-d"},
	} {
		if got := TunnelName(tt.user, tt.device); got != tt.want {
			t.Errorf("TunnelName(%q, %q) = %q, want %q", tt.user, tt.device, got, tt.want)
		}
	}
}

// tools finds programs that nobody here wrote.
func tools(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			lacking(t, "%s is missing: install wireguard-tools, wireguard-go and zbar-tools", n)
		}
	}
}

// lacking ends a test for which this machine has not what it needs; in CI that fails.
func lacking(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func run(t *testing.T, input string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, &stderr)
	}
	return stdout.String()
}

// wg-quick strips it and wg(8) sets it on a real interface, in a network namespace of its
// own; what the interface then has is what was meant.
func TestConfigIsAcceptedByWireGuard(t *testing.T) {
	tools(t, "wg", "wg-quick", "wireguard-go", "unshare")
	if os.Geteuid() != 0 {
		lacking(t, "an interface needs root")
	}
	private := strings.TrimSpace(run(t, "", "wg", "genkey"))
	public := strings.TrimSpace(run(t, private, "wg", "pubkey"))
	if k, err := peers.ParseKey(public); err != nil || k.String() != public {
		t.Fatalf("a key of wg(8): %v", err)
	}
	c := exampleConfig()
	c.Settings.DNS = []netip.Addr{netip.MustParseAddr("10.77.0.1")}
	// UAPI sockets are per host, so the name must be ours alone.
	name := fmt.Sprintf("pc%x", os.Getpid())
	file := filepath.Join(t.TempDir(), name+".conf")
	if err := os.WriteFile(file, []byte(c.Text(private)), 0o600); err != nil {
		t.Fatal(err)
	}
	stripped := filepath.Join(t.TempDir(), "stripped")
	if err := os.WriteFile(stripped, []byte(run(t, "", "wg-quick", "strip", file)), 0o600); err != nil {
		t.Fatal(err)
	}

	var output bytes.Buffer
	device := exec.CommandContext(t.Context(), "unshare", "--net", "--kill-child", "wireguard-go", "--foreground", name)
	device.Stdout, device.Stderr = &output, &output
	if err := device.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		device.Process.Kill()
		device.Wait()
		os.Remove("/var/run/wireguard/" + name + ".sock")
	})
	socket := "/var/run/wireguard/" + name + ".sock"
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("wireguard-go made no socket:\n%s", &output)
		}
	}
	run(t, "", "wg", "setconf", name, stripped)
	got := strings.Split(strings.TrimSpace(run(t, "", "wg", "show", name, "dump")), "\n")
	if len(got) != 2 {
		t.Fatalf("wg show: %q", got)
	}
	own, peer := strings.Split(got[0], "\t"), strings.Split(got[1], "\t")
	if own[0] != private || own[1] != public {
		t.Error("another private key")
	}
	psk := base64.StdEncoding.EncodeToString(c.PSK[:])
	if want := []string{key("gateway").String(), psk, "192.0.2.1:51820", "10.77.0.0/16,fd00:77::/64,192.168.7.0/24,2001:db8::/32"}; strings.Join(peer[:4], " ") != strings.Join(want, " ") || peer[7] != "25" {
		t.Errorf("the peer is %q", peer)
	}
}

// realText is a config as a phone gets it.
func realText() string {
	var private [32]byte
	rand.Read(private[:])
	return exampleConfig().Text(base64.StdEncoding.EncodeToString(private[:]))
}

func FuzzTunnelName(f *testing.F) {
	for _, s := range []string{"alice", "alice@example.com", "a\nb"} {
		f.Add(s)
	}
	tunnel := regexp.MustCompile(`^[a-zA-Z0-9_=+.-]{1,15}$`)
	f.Fuzz(func(t *testing.T, s string) {
		if peers.CheckUserName(s) == nil {
			if n := TunnelName(s, "phone"); !tunnel.MatchString(n) {
				t.Fatalf("a tunnel is named %q", n)
			}
		}
		if peers.CheckDeviceName(s) == nil {
			if n := TunnelName("alice", s); !tunnel.MatchString(n) {
				t.Fatalf("a tunnel is named %q", n)
			}
		}
	})
}
