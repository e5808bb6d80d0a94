package netstack

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/line"
)

// startClient makes a namespace "cliN" with Debian's wireguard-go in it, configured by
// wg(8): device n, whose endpoint is our side of a veth pair.
func startClient(t *testing.T, n byte, g dataplane.Gateway) (ns string) {
	t.Helper()
	for _, tool := range []string{"wireguard-go", "wg", "curl", "ping", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("this test needs %s: install wireguard-go, wireguard-tools, curl, iputils-ping, iproute2", tool)
			}
			t.Skip(err)
		}
	}
	ns = fmt.Sprintf("cli%d", n)
	wg := fmt.Sprintf("wgt%d", n)
	run(t, "ip netns add "+ns)
	t.Cleanup(func() {
		exec.Command("ip", "link", "del", "to-"+ns).Run() // the namespace's own end is slow
		exec.Command("ip", "netns", "del", ns).Run()
	})
	addVeth(t, ns, fmt.Sprintf("172.31.%d.1/24", n), fmt.Sprintf("172.31.%d.2/24", n),
		fmt.Sprintf("fd00:31:%x::1/64", n), fmt.Sprintf("fd00:31:%x::2/64", n))
	cmd := exec.Command("ip", "netns", "exec", ns, "wireguard-go", "-f", wg)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.Env = append(os.Environ(), "WG_PROCESS_FOREGROUND=1", "LOG_LEVEL=error")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.Remove("/run/wireguard/" + wg + ".sock")
	})
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat("/run/wireguard/" + wg + ".sock"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("wireguard-go does not start")
		}
	}
	d := testDevice(n, "")
	private, _ := key(n)
	_, near := key(gatewayKey)
	b64 := func(k dataplane.Key) string { return base64.StdEncoding.EncodeToString(k[:]) }
	conf := fmt.Sprintf("[Interface]\nPrivateKey = %s\n[Peer]\nPublicKey = %s\nPresharedKey = %s\nEndpoint = 172.31.%d.1:%d\nAllowedIPs = 0.0.0.0/0, ::/0\n",
		b64(private), b64(near), b64(d.PresharedKey), n, g.Listen.Port())
	file := "/run/" + wg + ".conf"
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "ip netns exec "+ns+" wg setconf "+wg+" "+file)
	for _, a := range d.Addrs {
		run(t, fmt.Sprintf("ip -n %s addr add %v/%d dev %s nodad", ns, a, a.BitLen(), wg))
	}
	run(t, fmt.Sprintf("ip -n %s link set %s mtu %d up", ns, wg, line.Usual))
	for _, r := range []string{"10.77.0.0/16", "198.51.100.0/24", "fd77::/64", "2001:db8:51::/64"} {
		run(t, fmt.Sprintf("ip -n %s route add %s dev %s", ns, r, wg))
	}
	return ns
}

// inside runs a command in a namespace and returns its output and exit code.
func inside(t testing.TB, ns string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", ns}, args...)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func curl(t testing.TB, ns string, args ...string) (string, int) {
	t.Helper()
	return inside(t, ns, append([]string{"curl", "-sS", "-m", "5"}, args...)...)
}

// curl's exit codes.
const (
	curlRefused = 7
	curlTimeout = 28
	curlReset   = 56
)

// The whole way with Debian's WireGuard, curl and ping, and a plane that runs as nobody.
func TestRealClients(t *testing.T) {
	needResource(t)
	alice, bob := testDevice(2, "alice/laptop"), testDevice(3, "bob/desk")
	devices := []dataplane.Device{alice, bob}
	g := testGateway(t)
	if err := allowPing(); err != nil {
		t.Fatal(err)
	}
	started, ends := make(chan bool, 8), make(chan error, 8)
	for _, a := range bothFamilies {
		listenTCP(t, "res", at(a, 1080), func(c net.Conn) {
			defer c.Close()
			io.WriteString(c, "HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nthe secret")
			io.Copy(io.Discard, c)
		})
		listenTCP(t, "res", at(a, 1081), func(c net.Conn) {
			io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\n")
			started <- true
			pour(ends)(c)
		})
		go echoUDP(listenUDP(t, "res", at(a, 1082)))
	}
	p := startNobody(t)
	policy := grants("alice -> 198.51.100.0/24 *", "alice -> 2001:db8:51::/64 *")
	a := p.do(t, order{Set: &dataplane.State{Gateway: g, Devices: devices}, Policy: policy, Devices: devices})
	if a.UID == 0 || strings.Trim(a.Caps, "0") != "" {
		t.Fatalf("the plane runs as uid %d with capabilities %s", a.UID, a.Caps)
	}
	t.Log(a.Detail)
	cli, desk := startClient(t, 2, g), startClient(t, 3, g)

	t.Run("before sign-in", func(t *testing.T) {
		for _, url := range []string{"http://198.51.100.2/page", "http://[2001:db8:51::2]/page", "http://10.77.0.1:8080/"} {
			if out, _ := curl(t, cli, "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", url); out != "303 http://10.77.0.1/" {
				t.Errorf("%s: %q, want a redirect to the portal", url, out)
			}
			if out, code := curl(t, cli, "-L", url); code != 0 || out != "sign in, 10.77.0.2" {
				t.Errorf("%s, followed: %q, exit %d", url, out, code)
			}
		}
		for _, url := range []string{"http://198.51.100.2:1080/", "http://[2001:db8:51::2]:1080/", "http://10.77.0.1:8081/", "http://10.77.0.3:2000/"} {
			start := time.Now()
			if out, code := curl(t, cli, url); code != curlRefused || time.Since(start) > time.Second {
				t.Errorf("%s: exit %d after %v, want refused at once: %s", url, code, time.Since(start), out)
			}
		}
		for _, to := range []string{"198.51.100.2", "2001:db8:51::2", "10.77.0.1", "fd77::1"} {
			out, code := inside(t, cli, "ping", "-c", "1", "-W", "1", to)
			if code == 0 || !strings.Contains(out, "Packet filtered") && !strings.Contains(strings.ToLower(out), "prohibited") {
				t.Errorf("ping %s: exit %d, want prohibited:\n%s", to, code, out)
			}
		}
	})

	session := signIn(alice, 1, time.Hour)
	p.do(t, order{Update: &dataplane.Change{PutSessions: []dataplane.Session{session}}})
	t.Run("signed in", func(t *testing.T) {
		for _, url := range []string{"http://198.51.100.2:1080/", "http://[2001:db8:51::2]:1080/"} {
			if out, code := curl(t, cli, url); out != "the secret" {
				t.Errorf("%s: %q, exit %d", url, out, code)
			}
		}
		for _, to := range []string{"198.51.100.2", "2001:db8:51::2"} {
			if out, code := inside(t, cli, "ping", "-c", "2", "-i", "0.2", "-W", "1", to); code != 0 {
				t.Errorf("ping %s: exit %d\n%s", to, code, out)
			}
		}
		if _, code := curl(t, desk, "http://198.51.100.2:1080/"); code != curlRefused {
			t.Errorf("Bob, without a session: exit %d", code)
		}
		time.Sleep(readingsAge)
		s := p.do(t, order{})
		for i, k := range s.Keys {
			if k == alice.PublicKey && (s.Peers[i].Endpoint.Addr() != netip.MustParseAddr("172.31.2.2") ||
				time.Since(s.Peers[i].LastHandshake) > time.Minute || s.Peers[i].Received == 0 || s.Peers[i].Sent == 0) {
				t.Errorf("Stats of Alice: %+v", s.Peers[i])
			}
		}
	})

	t.Run("spoofed source", func(t *testing.T) {
		run(t, "ip -n "+cli+" addr add 10.77.0.3/32 dev wgt2")
		defer run(t, "ip -n "+cli+" addr del 10.77.0.3/32 dev wgt2")
		if _, code := curl(t, cli, "-m", "1", "--interface", "10.77.0.3", "http://10.77.0.1/"); code != curlTimeout {
			t.Errorf("exit %d, want no answer", code)
		}
	})

	t.Run("expiry and revocation mid-transfer", func(t *testing.T) {
		for name, end := range map[string]func(){
			"expiry": func() {
				session.Until = time.Now().Add(800 * time.Millisecond)
				p.do(t, order{Update: &dataplane.Change{PutSessions: []dataplane.Session{session}}})
			},
			"revocation": func() {
				p.do(t, order{Update: &dataplane.Change{EndSessions: []dataplane.Session{session}}})
			},
			"rules": func() { p.do(t, order{Policy: grants("alice -> 198.51.100.7 *"), Devices: devices}) },
		} {
			session = signIn(alice, session.Codes[0].Serial+1, time.Hour)
			p.do(t, order{Policy: policy, Devices: devices, Update: &dataplane.Change{PutSessions: []dataplane.Session{session}}})
			for _, url := range []string{"http://198.51.100.2:1081/", "http://[2001:db8:51::2]:1081/"} {
				cmd := exec.Command("ip", "netns", "exec", cli, "curl", "-sS", "-m", "10", "-o", "/dev/null", url)
				var errs bytes.Buffer
				cmd.Stderr = &errs
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				midTransfer(t, started)
				start := time.Now()
				end()
				cmd.Wait()
				if code := cmd.ProcessState.ExitCode(); code != curlReset || time.Since(start) > 2*time.Second {
					t.Errorf("%s, %s: curl ended with %d after %v, want a reset: %s", name, url, code, time.Since(start), &errs)
				}
				select {
				case <-ends:
				case <-time.After(2 * time.Second):
					t.Errorf("%s, %s: the resource's connection is still open", name, url)
				}
				if _, code := curl(t, cli, "http://198.51.100.2:1080/"); code != curlRefused {
					t.Errorf("%s: afterwards exit %d, want refused", name, code)
				}
				session = signIn(alice, session.Codes[0].Serial+1, time.Hour)
				p.do(t, order{Policy: policy, Devices: devices, Update: &dataplane.Change{PutSessions: []dataplane.Session{session}}})
			}
		}
	})

	t.Run("peer to peer", func(t *testing.T) {
		answer := func(c net.Conn) {
			c.Read(make([]byte, 1024)) // else the close resets
			greet(c)
		}
		listenTCP(t, desk, "10.77.0.3:2000", answer)
		listenTCP(t, desk, "[fd77::3]:2000", answer)
		p.do(t, order{Update: &dataplane.Change{PutSessions: []dataplane.Session{signIn(bob, 1000, time.Hour)}}})
		curl(t, desk, "http://10.77.0.1/") // a handshake, so that Bob can be reached
		for _, url := range []string{"http://10.77.0.3:2000/", "http://[fd77::3]:2000/"} {
			if out, code := curl(t, cli, "--http0.9", url); code != curlRefused {
				t.Errorf("%s without a grant: exit %d, %q", url, code, out)
			}
		}
		p.do(t, order{Policy: grants("alice -> bob tcp:2000", "alice -> bob icmp"), Devices: devices})
		for url, want := range map[string]string{"http://10.77.0.3:2000/": "hello 10.77.0.2:", "http://[fd77::3]:2000/": "hello [fd77::2]:"} {
			if out, code := curl(t, cli, "--http0.9", url); !strings.HasPrefix(out, want) {
				t.Errorf("%s: exit %d, %q", url, code, out)
			}
		}
		for _, to := range []string{"10.77.0.3", "fd77::3"} {
			if out, code := inside(t, cli, "ping", "-c", "1", "-W", "2", to); code != 0 {
				t.Errorf("ping %s: exit %d\n%s", to, code, out)
			}
			if back := strings.Replace(to, "3", "2", 1); back != to {
				if _, code := inside(t, desk, "ping", "-c", "1", "-W", "1", back); code == 0 {
					t.Errorf("ping %s: the grant works backwards", back)
				}
			}
		}
	})

	t.Run("device removed mid-transfer", func(t *testing.T) {
		session = signIn(alice, 2000, time.Hour)
		p.do(t, order{Policy: policy, Devices: devices, Update: &dataplane.Change{PutSessions: []dataplane.Session{session}}})
		cmd := exec.Command("ip", "netns", "exec", cli, "curl", "-sS", "-m", "3", "-o", "/dev/null", "http://198.51.100.2:1081/")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		midTransfer(t, started)
		p.do(t, order{Update: &dataplane.Change{RemoveDevices: []dataplane.Device{alice}, EndSessions: []dataplane.Session{session}}})
		select {
		case <-ends:
		case <-time.After(time.Second):
			t.Error("the resource's connection is still open")
		}
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code == 0 {
			t.Error("curl does not notice")
		}
		if out, code := curl(t, cli, "-m", "2", "http://10.77.0.1/"); code == 0 {
			t.Errorf("a removed device reaches the portal: %q", out)
		}
	})
}

// midTransfer waits until the resource has begun to send, and a little longer.
func midTransfer(t *testing.T, started <-chan bool) {
	t.Helper()
	select {
	case <-started:
	case <-time.After(5 * time.Second):
		t.Fatal("the transfer does not begin")
	}
	time.Sleep(100 * time.Millisecond)
}

// Throughput through the whole plane, for information.
func TestThroughput(t *testing.T) {
	needResource(t)
	if _, err := exec.LookPath("iperf3"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs iperf3")
		}
		t.Skip(err)
	}
	alice := testDevice(4, "alice/fast")
	g := testGateway(t)
	newPlane(t, dataplane.Config{}, dataplane.State{
		Gateway: g, Devices: []dataplane.Device{alice}, Sessions: []dataplane.Session{signIn(alice, 1, time.Hour)},
		Rules: compile(t, grants("alice -> 198.51.100.0/24 *"), alice),
	})
	cli := startClient(t, 4, g)
	server := exec.Command("ip", "netns", "exec", "res", "iperf3", "-s", "-p", "1900")
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	for _, direction := range [][]string{nil, {"-R"}} {
		args := append([]string{"iperf3", "-c", "198.51.100.2", "-p", "1900", "-t", "2", "-f", "m"}, direction...)
		out, code := inside(t, cli, args...)
		// The server takes a moment to begin, and to be done with the test before.
		for end := time.Now().Add(15 * time.Second); code != 0 && time.Now().Before(end); out, code = inside(t, cli, args...) {
			time.Sleep(100 * time.Millisecond)
		}
		if code != 0 {
			t.Fatalf("iperf3 %v: exit %d\n%s", direction, code, out)
		}
		for line := range strings.Lines(out) {
			if strings.Contains(line, "receiver") {
				t.Logf("iperf3 %v: %s", direction, strings.TrimSpace(line))
			}
		}
	}
}
