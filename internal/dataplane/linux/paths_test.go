package linux

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// within runs f on a thread that is in a network namespace: sockets that it opens belong
// there. The thread comes back: were it to end, its children would be killed.
func within(t *testing.T, ns string, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i, path := range []string{"/proc/thread-self/ns/net", "/var/run/netns/" + ns} {
		h, err := os.Open(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer h.Close()
		enter := func() {
			if err := unix.Setns(int(h.Fd()), unix.CLONE_NEWNET); err != nil {
				panic(err) // this thread must not go on anywhere else
			}
		}
		if i == 0 {
			defer enter()
		} else {
			enter()
		}
	}
	f()
}

// guarded answers a whole request as what is guarded.
func guarded(c net.Conn) {
	defer c.Close()
	var asked []byte
	for b := make([]byte, 512); !bytes.Contains(asked, []byte("HTTP/1.0\r\n\r\n")); {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		asked = append(asked, b[:n]...)
	}
	io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nguarded")
}

func serveEach(t *testing.T, l net.Listener) {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go guarded(c)
		}
	}()
}

// reaches says for each path whether what is guarded answers; an answer of the portal's in
// its place is none.
func (b *bed) reaches() map[string]bool {
	out := map[string]bool{}
	var (
		wg sync.WaitGroup
		mu sync.Mutex
	)
	tell := func(name string, got bool) { mu.Lock(); out[name] = got; mu.Unlock() }
	tcp := func(name, addr string) {
		var c net.Conn
		var err error
		within(b.t, b.client, func() { c, err = net.DialTimeout("tcp", addr, time.Second) })
		if err != nil {
			tell(name, false)
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Second))
		io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		got, _ := io.ReadAll(c)
		tell(name, strings.Contains(string(got), "guarded"))
	}
	udp := func(name, addr, message string) {
		var c net.Conn
		var err error
		within(b.t, b.client, func() { c, err = net.Dial("udp", addr) })
		if err != nil {
			tell(name, false)
			return
		}
		defer c.Close()
		got := make([]byte, 64<<10)
		for range 3 {
			io.WriteString(c, message)
			c.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
			if n, _ := c.Read(got); string(got[:n]) == message {
				tell(name, true)
				return
			}
		}
		tell(name, false)
	}
	for i, res := range []string{"192.0.2.2", "2001:db8:2::2"} {
		at := func(a string, port int) string { return net.JoinHostPort(a, fmt.Sprint(port)) }
		v := []string{", IPv4", ", IPv6"}[i]
		wg.Go(func() { tcp("TCP to the resource"+v, at(res, 1201)) })
		wg.Go(func() { tcp("TCP to its port 80"+v, at(res, 80)) })
		wg.Go(func() { udp("UDP to the resource"+v, at(res, 1202), "x") })
		wg.Go(func() { udp("fragments to the resource"+v, at(res, 1202), strings.Repeat("y", 5000)) })
		wg.Go(func() { tell("ping of the resource"+v, b.pings(res)) })
		wg.Go(func() { tcp("TCP to the app"+v, at(gwAddrs[i].String(), 8080)) })
		peer := []string{"10.77.0.3", "fd77::3"}[i]
		wg.Go(func() { tcp("TCP to a device"+v, at(peer, 1203)) })
		wg.Go(func() { udp("UDP to a device"+v, at(peer, 1204), "x") })
		wg.Go(func() { tell("ping of a device"+v, b.pings(peer)) })
	}
	wg.Wait()
	return out
}

// Every path to something guarded × every state in which it must not be reached, through
// the kernel. The netstack plane has the same table. Bob's device is signed in all the time: it
// is an end of some paths, and his code is no other's.
func TestEveryPathNeedsTheOwnCode(t *testing.T) {
	b := newBed(t)
	key := newKey(t)
	laptop, private := testDevice(t, 2)
	bob, bobs := testDevice(t, 3)
	phone, _ := testDevice(t, 4)
	laptop.Name, bob.Name, phone.Name = "alice/laptop", "bob/desk", "alice/phone"
	devices := []dataplane.Device{laptop, bob, phone}
	policy, err := language.Parse([]byte(`{"grants": [{"src": ["alice"], "dst": ["*"], "ip": ["*"]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	var subjects []rules.Subject
	for _, d := range devices {
		subjects = append(subjects, rules.Subject{Device: d.Name, User: strings.Split(d.Name, "/")[0], Addrs: d.Addrs})
	}
	ruleset, err := rules.Compile(policy, rules.Options{Network: network, Gateway: gwAddrs, Session: time.Hour}, subjects)
	if err != nil {
		t.Fatal(err)
	}
	gw := gateway(key)
	gw.Masquerade = true
	session := func(d dataplane.Device, serial uint32, lasts time.Duration) dataplane.Session {
		now := time.Now()
		return dataplane.Session{Device: d.ID, Addrs: d.Addrs, Until: now.Add(lasts), Codes: []dataplane.Code{{Serial: serial, At: now}}}
	}
	p := b.plane(Options{}, dataplane.State{Gateway: gw, Devices: devices, Rules: ruleset, Sessions: []dataplane.Session{session(bob, 1, time.Hour)}})
	portal, err := p.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := portal.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "portal")
			c.Close()
		}
	}()
	serve := func(ns, a string, tcp []string, udp string) {
		t.Helper()
		var ls []net.Listener
		var u net.PacketConn
		within(t, ns, func() {
			for _, port := range tcp {
				var l net.Listener
				if l, err = net.Listen("tcp", net.JoinHostPort(a, port)); err != nil {
					return
				}
				ls = append(ls, l)
			}
			u, err = net.ListenPacket("udp", net.JoinHostPort(a, udp))
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range ls {
			serveEach(t, l)
		}
		t.Cleanup(func() { u.Close() })
		go func() {
			m := make([]byte, 64<<10)
			for {
				n, from, err := u.ReadFrom(m)
				if err != nil {
					return
				}
				u.WriteTo(m[:n], from)
			}
		}()
	}
	for _, a := range []string{"192.0.2.2", "2001:db8:2::2"} {
		serve(b.resource, a, []string{"1201", "80"}, "1202")
	}
	for _, a := range gwAddrs { // the app: bound to the device, as it is in earnest
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), iface) })
		}}
		l, lerr := lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(a, 8080).String())
		if err != nil || lerr != nil {
			t.Fatal(err, lerr)
		}
		serveEach(t, l)
	}
	b.connect(laptop, private, key)
	b.connectFrom(b.resource, "wgr0", "192.0.2.1", bob, bobs, key)
	for _, a := range bob.Addrs {
		serve(b.resource, a.String(), []string{"1203"}, "1204")
	}
	// WireGuard needs a handshake before anyone can reach bob: he asks the portal.
	eventually(t, "bob's handshake", func() bool {
		out, err := try("ip netns exec resource nc -w 1 10.77.0.1 80")
		return err == nil && strings.Contains(out, "portal") || strings.Contains(run(t, "ip netns exec resource wg show wgr0 latest-handshakes"), "\t1")
	})
	check := func(want bool, when string) {
		t.Helper()
		for name, got := range b.reaches() {
			if got != want {
				t.Errorf("%s: %s: reached is %v", when, name, got)
			}
		}
	}
	update := func(c dataplane.Change) {
		t.Helper()
		if err := p.Update(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	put := func(s dataplane.Session) { t.Helper(); update(dataplane.Change{PutSessions: []dataplane.Session{s}}) }

	check(false, "no code")
	put(session(phone, 2, time.Hour))
	check(false, "the code of her other device")
	in := session(laptop, 3, time.Hour)
	put(in)
	check(true, "signed in")
	update(dataplane.Change{EndSessions: []dataplane.Session{in}})
	check(false, "ended")
	short := session(laptop, 4, 10*time.Second*slow())
	put(short)
	check(true, "signed in for a while")
	time.Sleep(time.Until(short.Until) + 200*time.Millisecond)
	check(false, "expired")
	put(session(laptop, 5, time.Hour))
	check(true, "signed in again")
	update(dataplane.Change{RemoveDevices: []dataplane.Device{laptop}})
	check(false, "removed")
}
