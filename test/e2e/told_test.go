package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The waiters in the private network: what is connected to them only reads, as psql in
// LISTEN, IMAP in IDLE and ssh do.
var waiters = []string{lan4 + ":7001", "[" + lan6 + "]:7001"}

const waitPolicy = `{
  "hosts": {"web": "198.51.100.10", "web6": "2001:db8:2::10"},
  "grants": [
    {"src": ["autogroup:member"], "dst": ["app"], "ip": ["tcp:8080"]},
    {"src": ["autogroup:member"], "dst": ["web", "web6"], "ip": ["tcp:%s"]%s},
  ],
}`

// strictFirewall is what ufw and firewalld make of an end: what its conntrack calls invalid
// is dropped.
const strictFirewall = `table inet strict {
	chain input { type filter hook input priority filter; policy drop;
		iif lo accept
		ct state invalid drop
		ct state established,related accept
		meta l4proto { icmp, ipv6-icmp } accept
		tcp dport { 80, 7000, 7001 } accept
	}
}
`

func (h *host) strict() {
	h.t.Helper()
	if _, err := h.tryInput(strictFirewall, "nft", "-f", "-"); err != nil {
		h.t.Fatal(err)
	}
}

// wait is what a waiter does with a connection: it says its name back, reads, and writes down
// how that ended.
func wait(c net.Conn) {
	defer c.Close()
	name := make([]byte, 64)
	n, err := c.Read(name)
	if err != nil {
		return
	}
	c.Write(name[:n])
	_, err = c.Read(make([]byte, 1))
	fmt.Printf("%s told: %v\n", name[:n], err)
}

// waiting is a connection both of whose ends only read.
type waiting struct {
	name string
	net.Conn
}

// waitFor opens connections to the waiters and one to the app.
func (c *client) waitFor(name string) (list []waiting) {
	c.t.Helper()
	for i, a := range append([]string{tunnel4 + ":8080"}, waiters...) {
		conn, err := c.host.dialer(context.Background(), "tcp", a)
		if err != nil {
			c.t.Fatalf("%s: %v", name, err)
		}
		c.t.Cleanup(func() { conn.Close() })
		w := waiting{fmt.Sprintf("%s-%d", name, i), conn}
		if i > 0 {
			conn.Write([]byte(w.name))
			conn.SetReadDeadline(time.Now().Add(patience * slow))
			if _, err := io.ReadFull(conn, make([]byte, len(w.name))); err != nil {
				c.t.Fatalf("%s: %v", w.name, err)
			}
		}
		list = append(list, w)
	}
	return list
}

// A cut is told to both ends at once, also to those that only wait, whatever cuts: on both
// planes, in both families, with an end's own firewall as strict as they come.
func TestBothEndsAreTold(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		resource := w.web("80")
		w.lan.strict()
		w.startVpnd()
		w.startApp()
		open := fmt.Sprintf(waitPolicy, "7001", "")
		w.policy(open)

		told := func(c *client, name string, cut func()) {
			t.Helper()
			list := c.waitFor(name)
			cut()
			for i, x := range list {
				x.SetReadDeadline(time.Now().Add(time.Second * slow))
				n, err := x.Read(make([]byte, 1))
				if i == 0 && strings.Contains(name, "grant") {
					if !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("%s: the app, which is still granted: %d bytes, %v", x.name, n, err)
					}
					continue
				}
				if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s: the client is not told: %d bytes, %v", x.name, n, err)
				}
				if i > 0 {
					eventually(t, time.Second, x.name+": the resource is told", func() error {
						if !strings.Contains(resource.log.String(), x.name+" told: ") {
							return errors.New("not yet")
						}
						return nil
					})
				}
			}
			if w.plane == "linux" {
				eventually(t, time.Second, name+" leaves nothing tracked", func() error {
					for _, family := range []string{"ipv4", "ipv6"} {
						if out := w.gw.run("sh", "-c", "conntrack -L -f "+family+" -p tcp 2>/dev/null | grep -e "+c.addr4+" -e "+c.addr6+" | grep dport=7001 || true"); out != "" {
							return errors.New(out)
						}
					}
					return nil
				})
			}
		}
		peerGoes := func(c *client) {
			t.Helper()
			if w.plane != "linux" {
				return
			}
			eventually(t, time.Second, "the peer goes", func() error {
				if out := w.gw.run("wg", "show", w.iface, "allowed-ips"); strings.Contains(out, c.addr4+"/") {
					return errors.New(out)
				}
				return nil
			})
		}

		alice := w.person("alice", "phone")
		alice.strict()
		alice.signIn()
		told(alice, "session", func() { w.vpnctl("session", "end", "alice/phone") })
		alice.signIn()
		told(alice, "grant", func() { w.policy(fmt.Sprintf(waitPolicy, "7002", "")) })
		ends := time.Now().Add(4 * time.Second * slow)
		w.policy(fmt.Sprintf(waitPolicy, "7001", fmt.Sprintf(`, "expires": %q`, ends.UTC().Format(time.RFC3339Nano))))
		told(alice, "grant's end", func() { time.Sleep(time.Until(ends)) })
		w.policy(open)

		bob := w.person("bob", "laptop")
		bob.strict()
		bob.signIn()
		told(bob, "device disabled", func() { w.vpnctl("device", "disable", "bob/laptop") })
		peerGoes(bob)
		w.vpnctl("device", "enable", "bob/laptop")
		bob.shakeHands()
		bob.signIn()
		told(bob, "user disabled", func() { w.vpnctl("user", "disable", "bob") })
		peerGoes(bob)

		carol := w.person("carol", "tablet")
		carol.signIn()
		told(carol, "device removed", func() { w.vpnctl("device", "rm", "carol/tablet", "--yes") })
		peerGoes(carol)

		w.vpnctl("settings", "set", "--session", shortSession.String())
		dave := w.person("dave", "desk")
		until := dave.signIn().Expires
		told(dave, "session's end", func() { time.Sleep(time.Until(until)) })
		dave.signIn()
		told(dave, "user removed", func() { w.vpnctl("user", "rm", "dave", "--yes") })
		peerGoes(dave)
	})
}

// Many connections are cut by one change of the policy: none is forgotten. How long it takes
// is logged; with VPND_E2E_MANY there are as many as it says.
func TestManyAreTold(t *testing.T) {
	n := 1000
	if s := os.Getenv("VPND_E2E_MANY"); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal(err)
		}
	}
	both(t, func(t *testing.T, w *world) {
		resource := w.web("80")
		w.startVpnd()
		w.policy(fmt.Sprintf(waitPolicy, "7001", ""))
		var clients []*client
		for i := range max(3, n/800) { // netstack bounds what one device may hold
			name := fmt.Sprintf("person%d", i)
			c := w.person(name, name+"s")
			c.signIn()
			clients = append(clients, c)
		}
		var list []net.Conn
		var opening sync.WaitGroup
		var mu sync.Mutex
		for k := range 30 {
			opening.Go(func() {
				c := clients[k%len(clients)]
				for i := k; i < n; i += 30 {
					conn, err := c.host.dialer(context.Background(), "tcp", waiters[i/30%2])
					if err != nil {
						t.Error(err)
						return
					}
					name := fmt.Sprintf("many-%d", i)
					conn.Write([]byte(name))
					conn.SetReadDeadline(time.Now().Add(5 * patience * slow))
					if _, err := io.ReadFull(conn, make([]byte, len(name))); err != nil {
						t.Errorf("%s: %v", name, err)
					}
					mu.Lock()
					list = append(list, conn)
					mu.Unlock()
				}
			})
		}
		opening.Wait()
		defer func() {
			for _, c := range list {
				c.Close()
			}
		}()
		if t.Failed() {
			return
		}
		var waiting sync.WaitGroup
		var untold atomic.Int32
		for _, c := range list {
			c.SetReadDeadline(time.Now().Add(20 * time.Second * slow))
			waiting.Go(func() {
				if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					untold.Add(1)
				}
			})
		}
		asked := time.Now()
		w.policy(fmt.Sprintf(waitPolicy, "7002", ""))
		answered := time.Since(asked)
		waiting.Wait()
		clientsTold := time.Since(asked)
		eventually(t, 10*time.Second, "the resource's ends are told", func() error {
			if got := strings.Count(resource.log.String(), " told: "); got < n {
				return fmt.Errorf("%d of %d", got, n)
			}
			return nil
		})
		if k := untold.Load(); k > 0 {
			t.Errorf("%d of %d clients were not told", k, n)
		}
		t.Logf("%d connections: the change was answered after %v, all clients knew after %v, all of the resource's ends after %v at the latest", n, answered, clientsTold, time.Since(asked))
	})
}
