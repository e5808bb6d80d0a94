package filter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// bed is a gateway (this process's namespace) between a "tunnel" and a network behind:
//
//	alice, bob ── vt (bridge, the tunnel's interface) ── gateway ── lan0 ── wiki
//	                                                          └──── out0 ── stranger
//
// The tunnel is a plain link, so that everything seen is the filter's doing.
type bed struct {
	t     *testing.T
	f     *Filter
	state dataplane.State
	users map[string]rules.Subject
	serno uint32
	drift chan dataplane.Drift

	closers []io.Closer
	down    bool
}

const (
	appPort    = 8080
	portalPort = 45080
	markBit    = 0x10000
)

var (
	gw4, gw6       = netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1")
	alice4, alice6 = netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")
	bob4, bob6     = netip.MustParseAddr("10.77.0.3"), netip.MustParseAddr("fd77::3")
	wiki4, wiki6   = netip.MustParseAddr("192.168.50.2"), netip.MustParseAddr("fd50::2")
)

func sh(t testing.TB, script string) {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func newBed(t *testing.T, policy string, tweak func(*Config, *dataplane.State)) *bed {
	t.Helper()
	needNamespaces(t)
	sh(t, `
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
ip link add vt type bridge forward_delay 0
ip link set vt up
for n in alice bob wiki stranger; do ip netns add $n; ip -n $n link set lo up
ip netns exec $n sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'; done
i=2
for n in alice bob; do
  ip link add $n-p type veth peer name eth0 netns $n
  ip link set $n-p master vt up
  ip -n $n addr add 10.77.0.$i/32 dev eth0
  ip -n $n -6 addr add fd77::$i/128 dev eth0 nodad
  ip -n $n link set eth0 up
  ip -n $n route add 10.77.0.1 dev eth0
  ip -n $n route add default via 10.77.0.1
  ip -n $n -6 route add fd77::1 dev eth0
  ip -n $n -6 route add default via fd77::1
  i=$((i+1))
done
ip addr add 10.77.0.1/16 dev vt
ip -6 addr add fd77::1/64 dev vt nodad
ip link add lan0 type veth peer name eth0 netns wiki
ip addr add 192.168.50.1/24 dev lan0
ip -6 addr add fd50::1/64 dev lan0 nodad
ip link set lan0 up
ip -n wiki addr add 192.168.50.2/24 dev eth0
ip -n wiki -6 addr add fd50::2/64 dev eth0 nodad
ip -n wiki link set eth0 up
ip -n wiki route add default via 192.168.50.1
ip -n wiki -6 route add default via fd50::1
ip link add out0 type veth peer name eth0 netns stranger
ip addr add 192.168.60.1/24 dev out0
ip -6 addr add fd60::1/64 dev out0 nodad
ip link set out0 up
ip -n stranger addr add 192.168.60.2/24 dev eth0
ip -n stranger -6 addr add fd60::2/64 dev eth0 nodad
ip -n stranger link set eth0 up
ip -n stranger route add default via 192.168.60.1
ip -n stranger -6 route add default via fd60::1
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
for c in all default vt lan0 out0; do echo 0 >/proc/sys/net/ipv4/conf/$c/send_redirects; echo 0 >/proc/sys/net/ipv4/conf/$c/rp_filter; done
# Errors must come as often as the tests cause them.
echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
# Where br_netfilter is loaded, a refusal would leave a bridge as it is made, untranslated.
for f in /proc/sys/net/bridge/bridge-nf-call-*tables; do [ ! -e $f ] || echo 0 >$f; done
echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
`)
	// Links and bridge ports take a moment to come up.
	sh(t, `for x in alice,10.77.0.1 alice,fd77::1 bob,10.77.0.1 bob,fd77::1 wiki,192.168.50.1 wiki,fd50::1 stranger,192.168.60.1 stranger,fd60::1; do
  for i in 1 2 3 4 5 6 7 8 9; do ip netns exec ${x%,*} ping -qc1 -W1 ${x#*,} >/dev/null && break; sleep 0.1; done
done`)
	b := &bed{t: t, users: make(map[string]rules.Subject), drift: make(chan dataplane.Drift, 64)}
	t.Cleanup(b.tearDown)
	b.users["alice"] = rules.Subject{Device: "alice/laptop", User: "alice", Addrs: []netip.Addr{alice4, alice6}}
	b.users["bob"] = rules.Subject{Device: "bob/phone", User: "bob", Addrs: []netip.Addr{bob4, bob6}}
	b.state = dataplane.State{
		Gateway: dataplane.Gateway{
			Addrs:   []netip.Addr{gw4, gw6},
			Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")},
			Routes:  []netip.Prefix{netip.MustParsePrefix("192.168.50.0/24"), netip.MustParsePrefix("fd50::/64")},
		},
		Devices: []dataplane.Device{b.device("alice"), b.device("bob")},
	}
	c := Config{Interface: "vt", AppPort: appPort, PortalPort: portalPort, Mark: markBit,
		OnDrift: func(d dataplane.Drift) { b.drift <- d }, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	b.state.Rules = b.compile(policy)
	if tweak != nil {
		tweak(&c, &b.state)
	}
	f, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	b.f = f
	b.set()
	return b
}

// tearDown ends the filter and takes the bed apart.
func (b *bed) tearDown() {
	if b.down {
		return
	}
	b.down = true
	if b.f != nil {
		if err := b.f.Close(); err != nil {
			b.t.Error(err)
		}
	}
	for _, c := range b.closers {
		_ = c.Close()
	}
	sh(b.t, `for n in alice bob wiki stranger; do ip netns del $n; done
ip link del vt; for l in lan0 out0 alice-p bob-p; do ip link del $l 2>/dev/null || true; done; nft flush ruleset; conntrack -F 2>/dev/null`)
}

func (b *bed) device(user string) dataplane.Device {
	s := b.users[user]
	return dataplane.Device{ID: user, Name: s.Device, Addrs: s.Addrs}
}

func (b *bed) compile(policy string) *rules.Ruleset {
	b.t.Helper()
	p, err := language.Parse([]byte(policy))
	if err != nil {
		b.t.Fatal(err)
	}
	var subjects []rules.Subject
	for _, s := range b.users {
		subjects = append(subjects, s)
	}
	r, err := rules.Compile(p, rules.Options{Network: b.state.Gateway.Network, Gateway: b.state.Gateway.Addrs, Session: 12 * time.Hour}, subjects)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bed) set() {
	b.t.Helper()
	if err := b.f.Set(b.t.Context(), b.state); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) update(c dataplane.Change) {
	b.t.Helper()
	if err := b.f.Update(context.Background(), c); err != nil {
		b.t.Fatal(err)
	}
}

// signIn opens a session with one code, now.
func (b *bed) signIn(user string, length time.Duration) dataplane.Session {
	b.t.Helper()
	b.serno++
	now := time.Now()
	s := dataplane.Session{Device: user, Addrs: b.users[user].Addrs, Until: now.Add(length),
		Codes: []dataplane.Code{{Serial: b.serno, At: now}}}
	b.update(dataplane.Change{PutSessions: []dataplane.Session{s}})
	return s
}

func (b *bed) signOut(s dataplane.Session) {
	b.t.Helper()
	b.update(dataplane.Change{EndSessions: []dataplane.Session{s}})
}

// in runs fn in a namespace ("" is the gateway's). Sockets made there stay there.
func in[T any](b *bed, ns string, fn func() (T, error)) (T, error) {
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

// serve answers every TCP connection and UDP packet at addr:port in ns with name,
// and echoes what follows.
func (b *bed) serve(ns, name string, addr netip.Addr, port uint16) {
	b.t.Helper()
	at := netip.AddrPortFrom(addr, port).String()
	l, err := in(b, ns, func() (net.Listener, error) { return net.Listen("tcp", at) })
	if err != nil {
		b.t.Fatal(err)
	}
	u, err := in(b, ns, func() (net.PacketConn, error) { return net.ListenPacket("udp", at) })
	if err != nil {
		b.t.Fatal(err)
	}
	b.closers = append(b.closers, l, u)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = c.Write([]byte(name + "\n"))
				buf := make([]byte, 1500)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					_, _ = c.Write(buf[:n])
				}
			}()
		}
	}()
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(append([]byte(name+":"), buf[:n]...), from)
		}
	}()
}

const patience = 400 * time.Millisecond

// tcp connects and returns the name that the server sends: "" and an error if refused.
func (b *bed) tcp(ns string, addr netip.Addr, port uint16) (string, error) {
	c, err := b.dial(ns, addr, port)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	return strings.TrimSpace(string(buf[:n])), err
}

func (b *bed) dial(ns string, addr netip.Addr, port uint16) (net.Conn, error) {
	return in(b, ns, func() (net.Conn, error) {
		d := net.Dialer{Timeout: patience}
		return d.Dial("tcp", netip.AddrPortFrom(addr, port).String())
	})
}

// udp sends a packet and returns the answer.
func (b *bed) udp(ns string, addr netip.Addr, port uint16) (string, error) {
	c, err := in(b, ns, func() (net.Conn, error) {
		return net.Dial("udp", netip.AddrPortFrom(addr, port).String())
	})
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	return ask(c, "x")
}

// ask sends s and returns what comes back.
func ask(c net.Conn, s string) (string, error) {
	_ = c.SetDeadline(time.Now().Add(patience))
	_, err := c.Write([]byte(s))
	if errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EACCES) {
		// By this a UDP socket has learnt of a cut; what follows is another flow.
		_, err = c.Write([]byte(s))
	}
	if err != nil {
		return "", err
	}
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// ping sends one echo request.
func (b *bed) ping(ns string, addr netip.Addr) error {
	args := []string{"-c1", "-W1", addr.String()}
	cmd := exec.Command("ping", args...)
	if ns != "" {
		cmd = exec.Command("ip", append([]string{"netns", "exec", ns, "ping"}, args...)...)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (b *bed) want(what, want, got string, err error) {
	b.t.Helper()
	if err != nil || got != want {
		b.t.Errorf("%s: got %q, %v; want %q", what, got, err, want)
	}
}

func (b *bed) refused(what, got string, err error) {
	b.t.Helper()
	if err == nil {
		b.t.Errorf("%s: got %q, want it refused", what, got)
	}
}

func runNFT(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
