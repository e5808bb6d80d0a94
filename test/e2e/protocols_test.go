package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// protocolTools are the servers and clients of the protocols in docs/policy.md.
var protocolTools = []string{"in.tftpd", "vsftpd", "sipp", "dnsmasq", "chronyd", "gtlsserver", "gtlsclient", "busybox"}

const protocolPolicy = `{
  "hosts": {"srv": "198.51.100.10", "srv6": "2001:db8:2::10"},
  "grants": [
    {"src": ["alice"], "dst": ["srv", "srv6"], "ip": ["udp:53", "udp:123", "udp:443", "udp:69", "tcp:21", "tcp:30000-30100", "udp:5060", "udp:6000"]},
    %s
  ],
}`

const grantBack = `{"src": ["srv", "srv6"], "dst": ["alice"], "ip": ["udp:1024-65535", "tcp:1024-65535"]},`

// What docs/policy.md says of protocols, those that answer from another port among them, by
// IPv4 and IPv6, with Debian's servers and clients.
func TestAnotherPort(t *testing.T) {
	if onOtherKernel {
		t.Skip("the emulated machine has no such servers")
	}
	both(t, func(t *testing.T, w *world) {
		p := w.protocolServers()
		w.startVpnd()
		w.policy(fmt.Sprintf(protocolPolicy, ""))
		alice := w.person("alice", "phone")
		alice.signIn()

		check := func(when, another string) {
			t.Helper()
			var all sync.WaitGroup
			for _, e := range []ends{{alice, p, lan4, alice.addr4}, {alice, p, lan6, alice.addr6}} {
				expect := func(what, want string, f func(patience time.Duration) string) {
					patience := 3 * time.Second * slow
					if want == "yes" {
						patience = 20 * time.Second * slow
					}
					if got := f(patience); got != want {
						t.Errorf("%s, to %s: %s works: %s, want %s", when, e.server, what, got, want)
					}
				}
				all.Go(func() {
					expect("DNS", "yes", e.dns)
					expect("NTP", "yes", e.ntp)
					expect("QUIC", "yes", e.quic)
					expect("passive FTP", "yes", e.curl("ftp"))
					expect("active FTP", another, e.curl("ftp", "--ftp-port", e.device))
					expect("TFTP", another, e.curl("tftp"))
				})
				all.Go(func() {
					expect("SIP with media that come back to where they came from", "yes", e.call(true))
					expect("SIP with media from the server alone", another, e.call(false))
				})
			}
			all.Wait()
		}
		check("by default", "no")
		w.policy(fmt.Sprintf(protocolPolicy, grantBack))
		check("with a grant back", "no")
		if w.plane != "linux" {
			return
		}
		w.vpnctl("settings", "set", "--masquerade", "off")
		w.lan.run("ip", "route", "add", "10.77.0.0/16", "via", "198.51.100.1")
		w.lan.run("ip", "route", "add", "fd77::/64", "via", "2001:db8:2::1")
		check("not masqueraded, with a grant back", "yes")
		w.policy(fmt.Sprintf(protocolPolicy, ""))
		check("not masqueraded, without a grant back", "no")
	})
}

// protocols are the servers in the private network.
type protocols struct {
	dir     string
	content string // of "file"
}

func (w *world) protocolServers() *protocols {
	w.t.Helper()
	p := &protocols{filepath.Join("/run", fmt.Sprintf("protocols%d", w.id)), strings.Repeat("0123456789abcdef", 2000)}
	for _, d := range []string{"", "/empty", "/pub"} {
		if err := os.Mkdir(p.dir+d, 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	key, cert := selfSigned(w.t)
	files := map[string]string{
		"pub/file": p.content,
		"key.pem":  key,
		"cert.pem": cert,
		"vsftpd.conf": `listen=NO
listen_ipv6=YES
background=NO
anonymous_enable=YES
anon_root=` + p.dir + `/pub
secure_chroot_dir=` + p.dir + `/empty
connect_from_port_20=YES
pasv_min_port=30000
pasv_max_port=30100
seccomp_sandbox=NO
`,
	}
	w.sipScenarios(p.dir, files)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	w.lan.start(nil, "in.tftpd", "-L", "-u", "nobody", "-s", p.dir+"/pub")
	w.lan.start(nil, "vsftpd", p.dir+"/vsftpd.conf")
	w.lan.start(nil, "dnsmasq", "-k", "-C", "/dev/null", "-u", "root", "--pid-file=", "--log-facility=-", "--no-resolv", "--no-hosts",
		"--address=/db.example/192.0.2.99", "--address=/db.example/2001:db8::99")
	w.lan.start(nil, chrony("-d", p.dir+"/chrony.pid", "local stratum 1", "allow", "allow ::/0")...)
	w.lan.start(nil, "gtlsserver", "-q", "-d", p.dir+"/pub", "*", "443", p.dir+"/key.pem", p.dir+"/cert.pem")
	return p
}

// chrony is the command line of a chronyd that leaves the machine's clock alone.
func chrony(how, pid string, more ...string) []string {
	return append([]string{"chronyd", "-u", "root", "-x", "-t", "60", how, "cmdport 0", "bindcmdaddress /", "pidfile " + pid}, more...)
}

// ends are a device and a server of one family.
type ends struct {
	*client
	p              *protocols
	server, device string // addresses
}

// host is the server's address as a URL has it.
func (e ends) host() string {
	if strings.Contains(e.server, ":") {
		return "[" + e.server + "]"
	}
	return e.server
}

// works runs a command and says whether it gave what is wanted.
func (e ends) works(good func(out string) bool, args ...string) string {
	out, err := e.try(args...)
	if err != nil || !good(out) {
		e.t.Logf("%d bytes, %v", len(out), err)
		return "no"
	}
	return "yes"
}

func (e ends) curl(scheme string, more ...string) func(time.Duration) string {
	return func(patience time.Duration) string {
		args := append([]string{"curl", "-gsS", "--max-time", fmt.Sprint(int(patience.Seconds()))}, more...)
		return e.works(func(out string) bool { return out == e.p.content }, append(args, scheme+"://"+e.host()+"/file")...)
	}
}

func (e ends) dns(time.Duration) string {
	return e.works(func(out string) bool {
		return strings.Contains(out, "192.0.2.99") && strings.Contains(out, "2001:db8::99")
	}, "busybox", "nslookup", "db.example", e.server)
}

func (e ends) ntp(time.Duration) string {
	pid := filepath.Join(e.p.dir, "client"+e.server+".pid")
	return e.works(func(string) bool { return true }, chrony("-Q", pid, "server "+e.server+" iburst maxsamples 1")...)
}

func (e ends) quic(patience time.Duration) string {
	dir := e.t.TempDir()
	return e.works(func(string) bool {
		b, _ := os.ReadFile(dir + "/file")
		return string(b) == e.p.content
	}, "timeout", fmt.Sprint(int(patience.Seconds())), "gtlsclient", "-q", "--exit-on-all-streams-close", "--download="+dir, e.server, "443", "https://srv/file")
}

// selfSigned is a key and a certificate of its own, as PEM.
func selfSigned(t *testing.T) (key, cert string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"srv"}, NotAfter: time.Now().Add(time.Hour)}
	c, err := x509.CreateCertificate(rand.Reader, x, x, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return text("PRIVATE KEY", der), text("CERTIFICATE", c)
}
