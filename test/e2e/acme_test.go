package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"vpnd/internal/acme/acmetest"
)

// vpnd gets its certificate from a real authority and keeps it in the replicated state.
func TestACME(t *testing.T) {
	const name = "vpn.example.test"
	w := newWorld(t, "netstack") // for its folders: vpnd runs beside the authority, on loopback
	must(t, "ip", "link", "set", "lo", "up")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	portal := l.Addr().(*net.TCPAddr)
	l.Close()
	names := map[string]string{name: "127.0.0.1"}
	authority := acmetest.Start(t, acmetest.Config{TLSPort: portal.Port, HTTPPort: 80, Names: names})
	start := func(host string) *process {
		t.Helper()
		c := exec.Command(binary("vpnd"), "--data", w.path("data"), "--sealing-key", w.path("sealing.key"), "--control", w.path("run/control.sock"),
			"--plane", "netstack", "--wireguard", "127.0.0.1:51997", "--endpoint", "127.0.0.1:51997", "--portal", portal.String(), "--network", network,
			"--url", "https://"+host, "--acme", "ops@example.test", "--acme-directory", authority.Directory, "--acme-ca", authority.CA)
		p := launch(t, "here", c)
		eventually(t, 60*time.Second, "vpnd is ready", func() error {
			if !strings.Contains(p.log.String(), "is ready") {
				return fmt.Errorf("not yet: %s", p.log)
			}
			return nil
		})
		return p
	}
	vpnctl := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		c := exec.Command(binary("vpnctl"), append([]string{"--socket", w.path("run/control.sock")}, args...)...)
		c.Stdout, c.Stderr = &out, &errs
		if err := c.Run(); err != nil {
			t.Fatalf("vpnctl %s: %v: %s", strings.Join(args, " "), err, errs.String())
		}
		return out.String() + errs.String() // what status complains of is there
	}
	served := func() *x509.Certificate {
		t.Helper()
		c, err := tls.Dial("tcp", portal.String(), &tls.Config{InsecureSkipVerify: true, ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0]
	}
	ours := func() error {
		if c := served(); !slices.Contains(c.DNSNames, name) || !strings.Contains(c.Issuer.CommonName, "Pebble") {
			return fmt.Errorf("served is %v by %v", c.DNSNames, c.Issuer)
		}
		return nil
	}

	// A name that the authority does not find: the portal works all the same, and status says why.
	p := start("elsewhere.example.test")
	eventually(t, 30*time.Second, "status says what the authority answered", func() error {
		if out := strings.Join(strings.Fields(vpnctl("status")), " "); !strings.Contains(out, "elsewhere.example.test") || !strings.Contains(out, "its own authority's certificate") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if out := vpnctl("user", "add", "alice"); !strings.Contains(out, "not private") || !strings.Contains(out, "fingerprint") {
		t.Errorf("the invitation does not say what the browser is about to show:\n%s", out)
	}
	p.stop(t, syscall.SIGTERM)

	p = start(name)
	eventually(t, 30*time.Second, "a certificate", ours)
	first := served()
	if out := vpnctl("user", "invite", "alice"); strings.Contains(out, "private") || strings.Contains(out, "ingerprint") || !strings.Contains(out, "https://"+name+"/enroll#") {
		t.Errorf("with a certificate that browsers know the invitation says:\n%s", out)
	}
	out, err := exec.Command("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "-H", "Host: evil.example", "http://127.0.0.1/enroll").Output()
	if err != nil || string(out) != "307 https://"+name+"/enroll" {
		t.Errorf("port 80 leads to %s (%v)", out, err)
	}
	p.stop(t, syscall.SIGKILL)

	orders := authority.Orders()
	p = start(name)
	eventually(t, 30*time.Second, "the certificate is there again", ours)
	if !served().Equal(first) || authority.Orders() != orders {
		t.Errorf("a restart cost an order")
	}
	if strings.Contains(vpnctl("status"), "certificate") {
		t.Errorf("status complains:\n%s", vpnctl("status"))
	}
	p.stop(t, syscall.SIGTERM)
}
