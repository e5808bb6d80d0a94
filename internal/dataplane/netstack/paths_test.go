package netstack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	wgnet "golang.zx2c4.com/wireguard/tun/netstack"

	"vpnd/internal/dataplane"
)

// path is one way to something guarded. reach says whether the something was reached: an
// answer of the portal's in its place is none.
type path struct {
	name  string
	reach func(testing.TB, *wgnet.Net) bool
}

// paths has every way, in both families.
func paths() (list []path) {
	tcp := func(addr string) func(testing.TB, *wgnet.Net) bool {
		return func(t testing.TB, n *wgnet.Net) bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			c, err := n.DialContext(ctx, "tcp", addr)
			if err != nil {
				return false
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Second))
			io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
			b, _ := io.ReadAll(c)
			return strings.Contains(string(b), "guarded")
		}
	}
	udp := func(addr, message string) func(testing.TB, *wgnet.Net) bool {
		return func(t testing.TB, n *wgnet.Net) bool {
			c, err := n.Dial("udp", addr)
			if err != nil {
				return false
			}
			defer c.Close()
			for range 3 { // the first may meet a handshake
				if got, _ := exchange(c, message, 250*time.Millisecond); got == message {
					return true
				}
			}
			return false
		}
	}
	ping := func(to netip.Addr) func(testing.TB, *wgnet.Net) bool {
		return func(t testing.TB, n *wgnet.Net) bool { return pingOnce(t, n, to, 700*time.Millisecond) == nil }
	}
	for i, res := range bothFamilies {
		gate := []netip.Addr{gateway4, gateway6}[i]
		peer := testDevice(3, "").Addrs[i]
		list = append(list,
			path{"TCP to the resource", tcp(at(res, 1201))}, path{"TCP to its port 80", tcp(at(res, 80))},
			path{"UDP to the resource", udp(at(res, 1202), "x")}, path{"fragments to the resource", udp(at(res, 1202), strings.Repeat("y", 5000))},
			path{"ping of the resource", ping(res)},
			path{"TCP to the app", tcp(at(gate, 8080))},
			path{"TCP to a device", tcp(at(peer, 1203))}, path{"UDP to a device", udp(at(peer, 1204), "x")}, path{"ping of a device", ping(peer)},
		)
		for k := range list[len(list)-9:] {
			list[len(list)-9+k].name += fmt.Sprintf(", IPv%d", []int{4, 6}[i])
		}
	}
	return list
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

// Every path that reaches a resource × every state in which it must not be reached. Bob's
// device is signed in all the time: it is an end of some paths, and his code is no other's.
func TestEveryPathNeedsTheOwnCode(t *testing.T) {
	needResource(t)
	if err := allowPing(); err != nil {
		t.Fatal(err)
	}
	for _, a := range bothFamilies {
		listenTCP(t, "res", at(a, 1201), guarded)
		listenTCP(t, "res", at(a, 80), guarded)
		go echoUDP(listenUDP(t, "res", at(a, 1202)))
	}
	sock := t.TempDir() + "/app.sock"
	app, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.Close() }) // after the parallel parts
	go func() {
		for {
			c, err := app.Accept()
			if err != nil {
				return
			}
			go guarded(c)
		}
	}()
	laptop, phone, bob := testDevice(2, "alice/laptop"), testDevice(4, "alice/phone"), testDevice(3, "bob/desk")
	devices := []dataplane.Device{laptop, phone, bob}
	session := func(d dataplane.Device, serial uint32) dataplane.Change {
		return dataplane.Change{PutSessions: []dataplane.Session{signIn(d, serial, time.Hour)}}
	}
	end := dataplane.Change{EndSessions: []dataplane.Session{{Device: laptop.ID, Addrs: laptop.Addrs, Codes: []dataplane.Code{{Serial: 1}}}}}
	for _, state := range []struct {
		name    string
		changes []dataplane.Change // after a session of an hour, or with none before
		before  bool               // whether all was open before
		lasts   time.Duration
	}{
		{name: "no code"},
		{name: "the code of her other device", changes: []dataplane.Change{session(phone, 3)}},
		{name: "ended", before: true, lasts: time.Hour, changes: []dataplane.Change{end}},
		{name: "ended, and her other device has a code", before: true, lasts: time.Hour, changes: []dataplane.Change{end, session(phone, 3)}},
		{name: "expired", before: true, lasts: 8 * time.Second},
		{name: "removed", before: true, lasts: time.Hour, changes: []dataplane.Change{{RemoveDevices: []dataplane.Device{laptop}}}},
	} {
		t.Run(state.name, func(t *testing.T) {
			t.Parallel()
			g := testGateway(t)
			s := dataplane.State{Gateway: g, Devices: devices, Sessions: []dataplane.Session{signIn(bob, 2, time.Hour)},
				Rules: compile(t, grants("alice -> * *"), devices...)}
			began := time.Now()
			if state.before {
				s.Sessions = append(s.Sessions, signIn(laptop, 1, state.lasts))
			}
			p := newPlane(t, dataplane.Config{AppPort: 8080, AppSocket: sock}, s)
			servePortal(t, p)
			a, b := newClient(t, 2, g), newClient(t, 3, g)
			for _, addr := range bob.Addrs {
				serveTunnel(t, b, at(addr, 1203), guarded)
				serveTunnel(t, b, at(addr, 1204), guarded)
			}
			// WireGuard needs a handshake before anyone can reach bob: he asks the portal.
			if got := get(t, httpClient(b), "http://10.77.0.1/"); !strings.HasPrefix(got, "10.77.0.3") {
				t.Fatal(got)
			}
			check := func(want bool) {
				t.Helper()
				var wg sync.WaitGroup
				for _, x := range paths() {
					wg.Go(func() {
						if got := x.reach(t, a); got != want {
							t.Errorf("%s: reached is %v, want %v", x.name, got, want)
						}
					})
				}
				wg.Wait()
			}
			if state.before {
				check(true)
			}
			for _, c := range state.changes {
				update(t, p, c)
			}
			if state.lasts == 8*time.Second {
				time.Sleep(time.Until(began.Add(state.lasts + 100*time.Millisecond)))
			}
			check(false)
		})
	}
}
