package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Things are published in one act and reached without a new config: behind the gateway, by
// name, on the gateway's own host, at a unix socket. A grant opens the resource and not its
// target; both ends of what is cut are told.
func TestPublish(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.web("80", "9090")
		w.startVpnd()
		alice := w.person("alice", "phone")

		// On the gateway's own host: one at localhost, one at a socket, and one on every address
		// with the port that a resource has inside of the tunnel.
		page := func(network, at, says string) {
			var l net.Listener
			if err := w.gw.in(func() (err error) { l, err = net.Listen(network, at); return err }); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			go http.Serve(l, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(rw, "%s to %s", says, r.RemoteAddr)
			}))
		}
		page("tcp4", "127.0.0.1:3000", "wiki")
		sock := w.path("page.sock")
		page("unix", sock, "socket")
		page("tcp4", "0.0.0.0:8081", "everywhere")

		for _, add := range [][]string{
			{"web", lan4 + ":80", "--for", "alice"},
			{"six", "[" + lan6 + "]:80", "--port", "8085", "--for", "alice"},
			{"wiki", "http://localhost:3000", "--for", "alice", "--title", "Team wiki"},
			{"sock", "unix:" + sock, "--port", "8081", "--for", "alice"},
		} {
			w.vpnctl(append([]string{"resource", "add", "--yes"}, add...)...)
		}
		var list struct {
			Resources []struct {
				Name      string
				Addresses []string
			}
		}
		w.vpnctlJSON(&list, "resource", "ls")
		at := map[string][]string{}
		for _, r := range list.Resources {
			at[r.Name] = r.Addresses
		}
		url := func(name string, family int, port string) string {
			return "http://" + net.JoinHostPort(at[name][family], port) + "/"
		}

		// Without a code port 80 leads to the sign-in page, all else is refused.
		if status, _, location, err := alice.get(url("wiki", 0, "80")); err != nil || status != 303 || !strings.Contains(location, "10.77.0.1") {
			t.Errorf("before the code: %d, %s, %v", status, location, err)
		}
		if status, _, _, err := alice.get(url("sock", 0, "8081")); err == nil {
			t.Errorf("before the code another port answers %d", status)
		}
		alice.signIn()
		for family := range 2 {
			for _, x := range []struct{ name, port, says string }{
				{"web", "80", "resource to "}, {"six", "8085", "resource to "}, {"wiki", "80", "wiki to 127.77.0.2:"}, {"sock", "8081", "socket to "},
			} {
				status, body, _, err := alice.get(url(x.name, family, x.port))
				if err != nil || status != 200 || !strings.HasPrefix(body, x.says) {
					t.Errorf("%s: %d %q, %v", url(x.name, family, x.port), status, body, err)
				}
			}
		}
		for _, x := range []string{"http://" + lan4 + "/", "http://[" + lan6 + "]/", url("web", 0, "9090"), url("web", 0, "8081"), url("wiki", 0, "3000"), "http://10.77.200.1:8081/"} {
			if status, body, _, err := alice.get(x); err == nil {
				t.Errorf("%s, which no grant names: %d %q", x, status, body)
			}
		}
		if out := w.vpnctl("resource", "check"); !strings.Contains(out, "answers HTTP 200") || strings.Contains(out, " NO ") {
			t.Errorf("check says\n%s", out)
		}

		// A connection to each: cut, both ends are told.
		told := make(chan string, 4)
		hang := func(h *host, network, addr string) {
			var l net.Listener
			if err := h.in(func() (err error) { l, err = net.Listen(network, addr); return err }); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						io.WriteString(c, "hello")
						_, err := c.Read(make([]byte, 1))
						told <- fmt.Sprint(addr, " ", err)
						c.Close()
					}()
				}
			}()
		}
		hang(w.lan, "tcp", lan4+":7070")
		hang(w.gw, "tcp", "127.0.0.1:7071")
		w.vpnctl("resource", "add", "far", lan4+":7070", "--for", "alice", "--yes")
		w.vpnctl("resource", "add", "near", "localhost:7071", "--for", "alice", "--yes")
		w.vpnctlJSON(&list, "resource", "ls")
		for _, r := range list.Resources {
			at[r.Name] = r.Addresses
		}
		var conns []net.Conn
		for _, a := range []string{net.JoinHostPort(at["far"][0], "7070"), net.JoinHostPort(at["near"][0], "7071"), net.JoinHostPort(at["near"][1], "7071")} {
			c, err := alice.host.dialer(t.Context(), "tcp", a)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
				t.Fatalf("%s: %v", a, err)
			}
			conns = append(conns, c)
		}
		w.vpnctl("session", "end", "alice")
		for i, c := range conns {
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
				t.Errorf("connection %d: the client is not told: %v", i, err)
			}
		}
		for range conns {
			select {
			case s := <-told:
				if !strings.Contains(s, "reset") {
					t.Errorf("a server is told %s", s)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("a server is not told")
			}
		}

		// Back after a new code; gone when it is taken out.
		alice.signIn()
		if status, body, _, err := alice.get(url("wiki", 0, "80")); err != nil || status != 200 {
			t.Errorf("after a new code: %d %q, %v", status, body, err)
		}
		w.vpnctl("resource", "rm", "wiki", "--yes")
		if status, body, _, err := alice.get(url("wiki", 0, "80")); err == nil {
			t.Errorf("taken out: %d %q", status, body)
		}
		// It keeps its place, also over a restart.
		w.kill9()
		w.startVpnd()
		w.vpnctl("resource", "add", "wiki", "http://localhost:3000", "--for", "alice", "--yes")
		var again struct{ Addresses []string }
		w.vpnctlJSON(&again, "resource", "show", "wiki")
		if fmt.Sprint(again.Addresses) != fmt.Sprint(at["wiki"]) {
			t.Errorf("the wiki is at %v, and was at %v", again.Addresses, at["wiki"])
		}
	})
}
