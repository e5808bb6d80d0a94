package e2e

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The protected app is answered in the tunnel alone and to sessions alone, keeps its files
// through kill -9, and refuses by itself when vpnd or its packet filter is gone.
func TestApp(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.startVpnd()
		w.startApp()
		alice, bob, outsider := w.person("alice", "phone"), w.person("bob", "laptop"), w.public("outside")
		alice.signIn()
		if status, body, _, err := alice.get(app+"/api/files?name=kept.txt", "--data-binary", "kept", "-H", "Origin: "+app); err != nil || status != 201 {
			t.Fatalf("upload: %d %q %v", status, body, err)
		}

		t.Log("nobody outside the tunnel reaches it")
		for _, h := range []*host{outsider, w.lan} {
			h.run("ip", "route", "add", "10.77.0.0/16", "dev", "eth0")
			h.run("ip", "route", "add", "fd77::/64", "dev", "eth0")
		}
		for name, h := range map[string]*host{"the host": w.gw, "another host": outsider, "the private network": w.lan} {
			for _, a := range []string{"127.0.0.1", "[::1]", gwPublic4, "[" + gwPublic6 + "]", "198.51.100.1", "[2001:db8:2::1]", tunnel4, "[" + tunnel6 + "]"} {
				if out, err := h.try("curl", "-sS", "--max-time", "1", "http://"+a+":8080/api/whoami"); err == nil {
					t.Errorf("%s gets %s:8080: %q", name, a, out)
				}
			}
		}

		t.Log("its process never sees a device without a session: stopped, it could not answer, and nobody waits for it")
		w.app.signal(syscall.SIGSTOP)
		for _, a := range []string{tunnel4, "[" + tunnel6 + "]"} {
			status, _, where, err := bob.get("http://" + a + ":8080/x")
			if err != nil || status != 303 || where != "http://"+a+"/?next=http%3A%2F%2F"+strings.NewReplacer("[", "%5B", "]", "%5D", ":", "%3A").Replace(a)+"%3A8080%2Fx" {
				t.Errorf("bob at %s without a session: %d %q %v", a, status, where, err)
			}
		}
		listens := false
		for line := range strings.Lines(w.gw.run("sh", "-c", "ss -Hltn; ss -Hlxn")) {
			f := strings.Fields(line)
			if i := slices.IndexFunc(f, func(s string) bool { return strings.HasSuffix(s, ":8080") || strings.HasSuffix(s, "app.sock") }); i > 1 {
				listens = true
				if f[i-2] != "0" { // the receive queue of a listener: who waits
					t.Errorf("a connection waits for the app: %s", line)
				}
			}
		}
		if !listens {
			t.Error("ss does not show the app's listener")
		}
		w.app.signal(syscall.SIGCONT)

		t.Log("a file is whole or absent after kill -9 in the middle of an upload")
		upload := alice.start(nil, "sh", "-c", "head -c 30000000 /dev/zero | curl -sS --limit-rate 5M -H 'Origin: "+app+"' -T - -X POST '"+app+"/api/files?name=half'")
		eventually(t, 10*time.Second, "the upload is under way", func() error {
			part, err := filepath.Glob(w.path("app/files/tmp/*/content"))
			if err != nil || len(part) != 1 {
				return fmt.Errorf("%v %v", part, err)
			}
			if info, err := os.Stat(part[0]); err != nil || info.Size() < 1<<20 {
				return fmt.Errorf("%v", err)
			}
			return nil
		})
		w.app.stop(t, syscall.SIGKILL)
		<-upload.done
		w.startApp()
		eventually(t, 10*time.Second, "the app is back", func() error {
			if status, body, _, err := alice.get(app + "/api/files"); err != nil || status != 200 || !strings.Contains(body, `"kept.txt"`) || strings.Contains(body, `"half"`) {
				return fmt.Errorf("%d %q %v", status, body, err)
			}
			return nil
		})
		if left, err := os.ReadDir(w.path("app/files/tmp")); err != nil || len(left) != 0 {
			t.Errorf("the broken upload left %v (%v)", left, err)
		}
		if status, body, _, err := alice.get(app+"/api/files?name=whole", "-H", "Origin: "+app, "--data-binary", "@"+binary("vpnctl")); err != nil || status != 201 {
			t.Errorf("a whole upload: %d %q %v", status, body, err)
		}

		t.Log("it refuses an interface that is no tunnel")
		for _, name := range []string{"lo", "eth0"} {
			out, err := w.gw.try(readable("protected-app"), "--interface", name, "--data", t.TempDir(), "--whois", w.path("run/whois.sock"))
			if err == nil || !strings.Contains(err.Error(), "is no tunnel") {
				t.Errorf("on %s: %q %v", name, out, err)
			}
		}

		if w.plane == "linux" {
			appWithoutFilter(t, w, alice, bob)
		} else {
			appBySocket(t, w, alice, bob)
		}
	})
}

// appWithoutFilter takes vpnd and its table away, and brings WireGuard back.
func appWithoutFilter(t *testing.T, w *world, alice, bob *client) {
	t.Log("the app comes back with an interface that was made anew")
	w.vpnd.stop(t, syscall.SIGTERM)
	w.startVpnd()
	alice.shakeHands()
	eventually(t, 10*time.Second, "the app answers after a restart of vpnd", func() error {
		if status, body, _, err := alice.get(app + "/api/whoami"); err != nil || status != 200 {
			return fmt.Errorf("%d %q %v", status, body, err)
		}
		return nil
	})

	t.Log("with vpnd dead it does not know who calls, and says 503")
	conf := w.gw.run("wg", "showconf", w.iface)
	w.kill9()
	w.reviveWireGuard(conf)
	alice.shakeHands()
	bob.shakeHands()
	eventually(t, 15*time.Second, "the app answers 503", func() error {
		if status, body, _, err := alice.get(app+"/api/whoami", "--max-time", "8"); err != nil || status != 503 || !strings.Contains(body, "unavailable") {
			return fmt.Errorf("%d %q %v", status, body, err)
		}
		return nil
	})

	t.Log("without any packet filter it refuses a caller without a session by itself")
	w.gw.run("nft", "delete", "table", "inet", "vpnd")
	w.startVpnd("--plane", "netstack", "--wireguard", ":51999", "--portal", ":8999") // to answer WhoIs; its tunnel is nobody's
	eventually(t, 10*time.Second, "alice is served", func() error {
		if status, body, _, err := alice.get(app + "/api/whoami"); err != nil || status != 200 || !strings.Contains(body, `"alice"`) {
			return fmt.Errorf("%d %q %v", status, body, err)
		}
		return nil
	})
	if status, body, _, err := bob.get(app + "/api/files"); err != nil || status != 401 || !strings.Contains(body, "session_required") {
		t.Errorf("bob without a session: %d %q %v", status, body, err)
	}
	if status, _, where, err := bob.get(app+"/", "-H", "Accept: text/html"); err != nil || status != 303 || where != "http://"+tunnel4+"/" {
		t.Errorf("bob's browser without a session: %d %q %v", status, where, err)
	}
	bob.addr(bob.iface, "10.77.0.99/32")
	if _, body, _, err := bob.get(app+"/api/files", "--interface", "10.77.0.99", "--max-time", "2"); err == nil {
		t.Errorf("bob with a source that is not his got %q", body)
	}
}

// appBySocket speaks to the app's socket as vpnd does.
func appBySocket(t *testing.T, w *world, alice, bob *client) {
	t.Log("the socket takes root and the app's own user only, and believes the PROXY header")
	sock := w.path("app/app.sock")
	ask := func(from string) string {
		t.Helper()
		c, err := net.Dial("unix", sock)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second * slow))
		if from != "" {
			a, b := netip.MustParseAddr(from).As4(), netip.MustParseAddr(tunnel4).As4()
			head, err := hex.DecodeString("0d0a0d0a000d0a515549540a2111000c" + hex.EncodeToString(a[:]) + hex.EncodeToString(b[:]) + "30391f90")
			if err != nil {
				t.Fatal(err)
			}
			c.Write(head)
		}
		c.Write([]byte("GET /api/whoami HTTP/1.1\r\nHost: " + tunnel4 + ":8080\r\nConnection: close\r\n\r\n"))
		var answer strings.Builder
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			answer.Write(buf[:n])
			if err != nil {
				return answer.String()
			}
		}
	}
	for from, want := range map[string]string{alice.addr4: "200 OK", bob.addr4: "401 ", "10.77.0.200": "403 "} {
		if got := ask(from); !strings.HasPrefix(got, "HTTP/1.1 "+want) {
			t.Errorf("from %s: %q, want %s", from, got, want)
		}
	}
	if got := ask(""); strings.Contains(got, "200 OK") || strings.Contains(got, "alice") {
		t.Errorf("without a header: %q", got)
	}
	if out, err := w.gw.tryInput("x", "setpriv", "--reuid", stranger, "--regid", stranger, "--clear-groups", "--", "nc", "-U", "-w", "2", sock); err == nil && out != "" {
		t.Errorf("another user's connection is answered %q", out)
	}

	t.Log("with vpnd dead it does not know who calls, and says 503")
	w.kill9()
	if got := ask(alice.addr4); !strings.HasPrefix(got, "HTTP/1.1 503 ") {
		t.Errorf("with vpnd dead: %q", got)
	}
	w.startVpnd()
	alice.shakeHands()
	eventually(t, 20*time.Second, "the app answers after a restart of vpnd", func() error {
		if status, body, _, err := alice.get(app + "/api/whoami"); err != nil || status != 200 {
			return fmt.Errorf("%d %q %v", status, body, err)
		}
		return nil
	})
}
