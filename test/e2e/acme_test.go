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

// acmeBed is vpnd beside a real authority, on loopback.
type acmeBed struct {
	t         *testing.T
	w         *world // for its folders
	name      string
	portal    *net.TCPAddr
	authority *acmetest.Authority
}

// newACMEBed starts an authority that knows one name, and asks TLS-ALPN where the portal is, or at
// tlsPort.
func newACMEBed(t *testing.T, name string, tlsPort ...int) *acmeBed {
	t.Helper()
	b := &acmeBed{t: t, w: newWorld(t, "netstack"), name: name}
	must(t, "ip", "link", "set", "lo", "up")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.portal = l.Addr().(*net.TCPAddr)
	l.Close()
	asked := append(tlsPort, b.portal.Port)[0]
	b.authority = acmetest.Start(t, acmetest.Config{TLSPort: asked, HTTPPort: 80, Names: map[string]string{name: "127.0.0.1"}})
	return b
}

// start starts vpnd for a name.
func (b *acmeBed) start(host string) *process {
	b.t.Helper()
	c := exec.Command(binary("vpnd"), "--data", b.w.path("data"), "--sealing-key", b.w.path("sealing.key"), "--control", b.w.path("run/control.sock"),
		"--plane", "netstack", "--wireguard", "127.0.0.1:51997", "--endpoint", "127.0.0.1:51997", "--portal", b.portal.String(), "--network", network,
		"--url", "https://"+host, "--acme", "ops@example.test", "--acme-directory", b.authority.Directory, "--acme-ca", b.authority.CA)
	p := launch(b.t, "here", c)
	eventually(b.t, 60*time.Second, "vpnd is ready", func() error {
		if !strings.Contains(p.log.String(), "is ready") {
			return fmt.Errorf("not yet: %s", p.log)
		}
		return nil
	})
	return p
}

// served is the certificate that a browser sees.
func (b *acmeBed) served() *x509.Certificate {
	b.t.Helper()
	c, err := tls.Dial("tcp", b.portal.String(), &tls.Config{InsecureSkipVerify: true, ServerName: b.name})
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0]
}

// ours says whether that is the authority's for the name.
func (b *acmeBed) ours() error {
	if c := b.served(); !slices.Contains(c.DNSNames, b.name) || !strings.Contains(c.Issuer.CommonName, "Pebble") {
		return fmt.Errorf("served is %v by %v", c.DNSNames, c.Issuer)
	}
	return nil
}

// Where the authority does not reach the portal's own port, it asks port 80 (HTTP-01).
func TestACMEByHTTP(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0") // nobody listens there in a moment
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	const name = "vpn.example.test"
	b := newACMEBed(t, name, closed.Addr().(*net.TCPAddr).Port)
	p := b.start(name)
	eventually(t, 60*time.Second, "a certificate", b.ours)
	log := strings.Join(b.authority.Log(), "\n")
	if !strings.Contains(log, "validate w/ HTTP: http://"+name+":80/") {
		t.Errorf("the authority did not ask by HTTP-01:\n%s", log)
	}
	// Nothing else is answered there: every path, a challenge's too, leads to HTTPS at the portal's name.
	for _, path := range []string{"/", "/enroll", "/.well-known/acme-challenge/none"} {
		out, err := exec.Command("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "-H", "Host: "+name, "http://127.0.0.1"+path).Output()
		if err != nil || string(out) != "307 https://"+name+path {
			t.Errorf("port 80 leads from %s to %s (%v)", path, out, err)
		}
	}
	p.stop(t, syscall.SIGTERM)
}

// vpnd gets its certificate from a real authority and keeps it in the replicated state.
func TestACME(t *testing.T) {
	const name = "vpn.example.test"
	b := newACMEBed(t, name)
	w, authority := b.w, b.authority
	start := b.start
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
	served, ours := b.served, b.ours

	// A name that the authority does not find: the portal works all the same, and status says why.
	p := start("elsewhere.example.test")
	eventually(t, 30*time.Second, "status says what the authority answered", func() error {
		if out := strings.Join(strings.Fields(vpnctl("status")), " "); !strings.Contains(out, "elsewhere.example.test") || !strings.Contains(out, "its own authority's certificate") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	diagnosis, _ := exec.Command(binary("vpnctl"), "--socket", w.path("run/control.sock"), "-o", "json", "doctor").Output() // its exit code says that something must be done
	if !bytes.Contains(diagnosis, []byte(`"certificate_refused"`)) {
		t.Errorf("the doctor says nothing of the refusal:\n%s", diagnosis)
	}
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
