package tell

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"
)

// bed is a gateway (this process's namespace) between a "tunnel" and a network behind:
//
//	alice ── vt (the tunnel's interface) ── gateway ── lan0 ── wiki
//
// A few rules of nft(8) stand for the filter's.
type bed struct {
	t      *testing.T
	teller *Teller
}

const packetMark = 0x0c000000

var (
	alice4, alice6 = netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")
	wiki4, wiki6   = netip.MustParseAddr("192.168.50.2"), netip.MustParseAddr("fd50::2")
	gw4, gw6       = netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1")
	network        = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")}
)

// rules do what the filter does with flows that are being told.
const rules = `table inet t {
	chain untracked { type filter hook output priority raw; meta mark 0x0c000000 notrack accept; }
	chain pre { type filter hook prerouting priority -90; ct mark and 0xfffffffc == 0xffffff00 goto cut; }
	chain cut {
		ct direction original ct mark set ct mark or 1
		ct direction reply ct mark set ct mark or 2
		meta l4proto tcp reject with tcp reset
		drop
	}
	chain post { type nat hook postrouting priority srcnat
		%s
	}
}
`

// strict is an end's own firewall, as ufw and firewalld make it.
const strict = `table inet f { chain i { type filter hook input priority 0; policy drop;
	iif lo accept
	ct state invalid counter drop
	ct state established,related accept
	tcp dport 7000 accept
	meta l4proto ipv6-icmp accept
	}
}
`

func sh(t testing.TB, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func newBed(t *testing.T, masquerade bool) *bed {
	t.Helper()
	needNamespaces(t)
	t.Cleanup(func() {
		sh(t, `for n in alice wiki; do ip netns del $n 2>/dev/null || true; done
for l in vt lan0; do ip link del $l 2>/dev/null || true; done; nft flush ruleset; conntrack -F 2>/dev/null || true`)
	})
	sh(t, `
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
for n in alice wiki; do ip netns add $n; ip -n $n link set lo up
ip netns exec $n sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'; done
ip link add vt type veth peer name eth0 netns alice
ip link add lan0 type veth peer name eth0 netns wiki
ip addr add 10.77.0.1/16 dev vt; ip addr add fd77::1/64 dev vt nodad; ip link set vt up
ip addr add 192.168.50.1/24 dev lan0; ip addr add fd50::1/64 dev lan0 nodad; ip link set lan0 up
ip -n alice addr add 10.77.0.2/16 dev eth0; ip -n alice addr add fd77::2/64 dev eth0 nodad; ip -n alice link set eth0 up
ip -n wiki addr add 192.168.50.2/24 dev eth0; ip -n wiki addr add fd50::2/64 dev eth0 nodad; ip -n wiki link set eth0 up
ip -n alice route add default via 10.77.0.1; ip -n alice route add default via fd77::1
ip -n wiki route add default via 192.168.50.1; ip -n wiki route add default via fd50::1
echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
for x in alice,10.77.0.1 alice,fd77::1 wiki,192.168.50.1 wiki,fd50::1; do
  for i in 1 2 3 4 5 6 7 8 9; do ip netns exec ${x%,*} ping -qc1 -W1 ${x#*,} >/dev/null && break; sleep 0.1; done
done`)
	post := ""
	if masquerade {
		post = "oif lan0 masquerade"
	}
	load(t, "", fmt.Sprintf(rules, post))
	b := &bed{t: t, teller: New(Config{Interface: "vt", PacketMark: packetMark, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})}
	b.teller.SetNetwork(network)
	t.Cleanup(b.teller.Close)
	return b
}

// load gives a namespace ("" is the gateway's) a ruleset.
func load(t *testing.T, ns, rules string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	if ns != "" {
		cmd = exec.Command("ip", "netns", "exec", ns, "nft", "-f", "-")
	}
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
}

// in runs fn in a namespace ("" is the gateway's). Sockets made there stay there.
func in[T any](ns string, fn func() (T, error)) (T, error) {
	if ns == "" {
		return fn()
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		h, err := os.Open("/run/netns/" + ns)
		if err == nil {
			err = unix.Setns(int(h.Fd()), unix.CLONE_NEWNET)
			_ = h.Close()
		}
		if err != nil {
			var zero T
			done <- result{zero, err}
			return
		}
		v, err := fn()
		done <- result{v, err}
	}()
	r := <-done
	return r.v, r.err
}

// listen listens on TCP in a namespace.
func (b *bed) listen(ns string, at netip.Addr) net.Listener {
	b.t.Helper()
	l, err := in(ns, func() (net.Listener, error) { return net.Listen("tcp", netip.AddrPortFrom(at, 7000).String()) })
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = l.Close() })
	return l
}

// connect opens n connections and gives all their ends: a beginner, its acceptor, and so on.
func (b *bed) connect(l net.Listener, n int, dial func() (net.Conn, error)) []net.Conn {
	b.t.Helper()
	var all []net.Conn
	for range n {
		c, err := dial()
		if err != nil {
			b.t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			b.t.Fatal(err)
		}
		all = append(all, c, s)
		b.t.Cleanup(func() { _ = c.Close(); _ = s.Close() })
	}
	return all
}

func dialFrom(ns string, to netip.Addr) func() (net.Conn, error) {
	return func() (net.Conn, error) {
		return in(ns, func() (net.Conn, error) {
			d := net.Dialer{Timeout: 3 * time.Second, KeepAlive: -1}
			return d.Dial("tcp", netip.AddrPortFrom(to, 7000).String())
		})
	}
}

// flows are the tracked flows of a protocol.
func (b *bed) flows(proto uint8) []conntrack.Flow {
	b.t.Helper()
	conn, err := dial()
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	all, err := conn.Dump(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	var out []conntrack.Flow
	for _, f := range all {
		if f.TupleOrig.Proto.Protocol == proto {
			out = append(out, f)
		}
	}
	return out
}

func (b *bed) cut(flows []conntrack.Flow) <-chan struct{} {
	b.t.Helper()
	done, err := b.teller.Cut(flows)
	if err != nil {
		b.t.Fatal(err)
	}
	return done
}

// wait waits with a limit for what should take milliseconds.
func (b *bed) wait(done <-chan struct{}) {
	b.t.Helper()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		b.t.Fatal("the ends of cut flows are told for 20 s and more")
	}
}

// told reads from ends that only wait until they are reset.
func (b *bed) told(ends []net.Conn) {
	b.t.Helper()
	for i, c := range ends {
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
		n, err := c.Read(make([]byte, 1))
		if err == nil || os.IsTimeout(err) {
			b.t.Errorf("%s of connection %d: read %d bytes, %v; want it reset", []string{"beginner", "acceptor"}[i%2], i/2, n, err)
		}
	}
}

// nothingLeft fails when a flow is still tracked.
func (b *bed) nothingLeft() {
	b.t.Helper()
	for _, p := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP} {
		if left := b.flows(p); len(left) > 0 {
			b.t.Errorf("%d flows of protocol %d are still tracked, as %+v", len(left), p, left[0])
		}
	}
}
