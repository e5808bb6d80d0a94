package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// The whole test binary runs in a network and a mount namespace of its own, so nothing
// on the host is seen or touched, and several runs do not meet. In it stands one more
// namespace, "res", with a host that is the guarded resource.

const inNamespaceEnv = "VPND_NETSTACK_TEST_NS"

func TestMain(m *testing.M) {
	if os.Getenv(inNamespaceEnv) == "" && os.Geteuid() == 0 {
		enterNamespace()
	}
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(playRole(role))
	}
	os.Exit(m.Run())
}

// enterNamespace runs the binary again inside namespaces. It returns only where there
// are none to be had.
func enterNamespace() {
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return
	}
	args := []string{"unshare", "--net", "--mount"}
	if exec.Command(unshare, append(args[1:], "true")...).Run() != nil {
		return
	}
	exe, err := os.Executable()
	if err != nil {
		return
	}
	// ip netns and WireGuard's UAPI sockets live in /run: a fresh one hides the host's.
	script := `mount -t tmpfs tmpfs /run && ip link set lo up && exec "$0" "$@"`
	args = append(append(args, "sh", "-c", script, exe), os.Args[1:]...)
	syscall.Exec(unshare, args, append(os.Environ(), inNamespaceEnv+"=1"))
}

// needNamespace fails the test where there are no namespaces.
func needNamespace(t testing.TB) {
	t.Helper()
	if os.Getenv(inNamespaceEnv) != "" {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test needs unshare(1) and root, for network namespaces")
	}
	t.Skip("network namespaces need root")
}

func run(t testing.TB, command string) string {
	t.Helper()
	args := strings.Fields(command)
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// Addresses of the resource and of the gateway's side towards it.
var (
	res4   = netip.MustParseAddr("198.51.100.2")
	res6   = netip.MustParseAddr("2001:db8:51::2")
	gwOut4 = netip.MustParseAddr("198.51.100.1")
)

// needResource makes the namespace "res", once for the process.
func needResource(t testing.TB) {
	t.Helper()
	needNamespace(t)
	if _, err := os.Stat("/run/netns/res"); err == nil {
		return
	}
	run(t, "ip netns add res")
	addVeth(t, "res", "198.51.100.1/24", "198.51.100.2/24", "2001:db8:51::1/64", "2001:db8:51::2/64")
	run(t, "ip -n res route add default via 198.51.100.1")
	run(t, "ip -n res -6 route add default via 2001:db8:51::1")
	// Neighbour discovery takes a second on a new link: have it done.
	for _, a := range []netip.Addr{res4, res6} {
		if c, err := net.DialTimeout("tcp", netip.AddrPortFrom(a, 1).String(), 5*time.Second); err == nil {
			c.Close()
		}
	}
}

// addVeth joins a namespace to ours.
func addVeth(t testing.TB, ns, ours4, theirs4, ours6, theirs6 string) {
	t.Helper()
	run(t, fmt.Sprintf("ip link add to-%s type veth peer name eth0 netns %s", ns, ns))
	run(t, fmt.Sprintf("ip addr add %s dev to-%s", ours4, ns))
	run(t, fmt.Sprintf("ip addr add %s dev to-%s nodad", ours6, ns))
	run(t, fmt.Sprintf("ip link set to-%s up", ns))
	run(t, fmt.Sprintf("ip -n %s link set lo up", ns))
	run(t, fmt.Sprintf("ip -n %s addr add %s dev eth0", ns, theirs4))
	run(t, fmt.Sprintf("ip -n %s addr add %s dev eth0 nodad", ns, theirs6))
	run(t, fmt.Sprintf("ip -n %s link set eth0 up", ns))
}

// in runs f with the calling thread in a namespace: sockets that f opens belong to it.
// The thread comes back: were it to end, the children it has started would be killed.
func in(t testing.TB, ns string, f func()) {
	t.Helper()
	open := func(path string) int {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	runtime.LockOSThread()
	home := open("/proc/thread-self/ns/net")
	defer unix.Close(home)
	there := open("/run/netns/" + ns)
	defer unix.Close(there)
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	f()
	if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	runtime.UnlockOSThread()
}

// listenTCP listens in a namespace and serves each connection with serve.
func listenTCP(t testing.TB, ns, addr string, serve func(net.Conn)) {
	t.Helper()
	var l net.Listener
	var err error
	in(t, ns, func() { l, err = net.Listen("tcp", addr) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
}

// listenUDP listens in a namespace.
func listenUDP(t testing.TB, ns, addr string) *net.UDPConn {
	t.Helper()
	var c net.PacketConn
	var err error
	in(t, ns, func() { c, err = net.ListenPacket("udp", addr) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// echoUDP sends every datagram back.
func echoUDP(c *net.UDPConn) {
	b := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		c.WriteToUDPAddrPort(b[:n], from)
	}
}

// greet answers with the other end's address and closes.
func greet(c net.Conn) {
	fmt.Fprintf(c, "hello %s", c.RemoteAddr())
	c.Close()
}

// compile gives the policy's Ruleset for devices named user/device.
func compile(t testing.TB, policy string, devices ...dataplane.Device) *rules.Ruleset {
	t.Helper()
	r, err := compileFor(policy, devices)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func compileFor(policy string, devices []dataplane.Device) (*rules.Ruleset, error) {
	p, err := language.Parse([]byte(policy))
	if err != nil {
		return nil, err
	}
	var subjects []rules.Subject
	for _, d := range devices {
		user, _, _ := strings.Cut(d.Name, "/")
		subjects = append(subjects, rules.Subject{Device: d.Name, User: user, Addrs: d.Addrs})
	}
	return rules.Compile(p, rules.Options{
		Network: network, Gateway: []netip.Addr{gateway4, gateway6}, Session: 12 * time.Hour,
	}, subjects)
}

// grants is a policy of one-line grants "src -> dst ip".
func grants(lines ...string) string {
	var b strings.Builder
	b.WriteString(`{"grants": [`)
	for _, l := range lines {
		f := strings.Fields(l)
		fmt.Fprintf(&b, `{"src": [%q], "dst": [%q], "ip": [%q]`, f[0], f[2], f[3])
		if len(f) > 4 {
			fmt.Fprintf(&b, `, "mfa": %q`, f[4])
		}
		b.WriteString("},")
	}
	b.WriteString(`]}`)
	return b.String()
}

// signIn is a session of d that began just now.
func signIn(d dataplane.Device, serial uint32, lasts time.Duration) dataplane.Session {
	now := time.Now()
	return dataplane.Session{
		Device: d.ID, Addrs: d.Addrs, Until: now.Add(lasts),
		Codes: []dataplane.Code{{Serial: serial, At: now}},
	}
}

func update(t testing.TB, p *Plane, c dataplane.Change) {
	t.Helper()
	if err := p.Update(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// allowPing lets every group of our namespace open ping sockets.
func allowPing() error {
	return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0)
}
