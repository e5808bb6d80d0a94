// Package acmetest runs a real authority for tests: pebble, as Let's Encrypt publishes it, with
// the names that a test gives it. Everything is on loopback.
package acmetest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Authority is a pebble.
type Authority struct {
	Directory string // its URL
	CA        string // a PEM file: by whom its own HTTPS is trusted

	t      *testing.T
	dir    string
	binary string
	names  string // address of the names' server
	mu     sync.Mutex
	log    []string
	cmd    *exec.Cmd
	done   chan struct{}
}

// Config is what a test decides.
type Config struct {
	Listen   string            // the address that pebble serves at; 127.0.0.1
	TLSPort  int               // where TLS-ALPN is asked
	HTTPPort int               // where HTTP-01 is asked
	Valid    time.Duration     // of a certificate; 90 days
	Names    map[string]string // addresses by name; others do not exist
}

// Start builds and starts a pebble, which ends with the test.
func Start(t *testing.T, c Config) *Authority {
	t.Helper()
	if c.Valid == 0 {
		c.Valid = 90 * 24 * time.Hour
	}
	a := &Authority{t: t, dir: t.TempDir()}
	a.binary = filepath.Join(a.dir, "pebble")
	build := exec.Command("go", "build", "-modfile="+filepath.Join(root(t), "tools/go.mod"), "-o", a.binary, "github.com/letsencrypt/pebble/v2/cmd/pebble")
	build.Dir = root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building pebble: %v\n%s", err, out)
	}
	a.serveNames(c.Names)
	a.CA = filepath.Join(a.dir, "ca.pem")
	a.certify()
	listen, management := freePort(t), freePort(t)
	a.Directory = fmt.Sprintf("https://127.0.0.1:%d/dir", listen)
	config := map[string]any{"pebble": map[string]any{
		"listenAddress": fmt.Sprintf("127.0.0.1:%d", listen), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", management),
		"certificate": a.CA, "privateKey": filepath.Join(a.dir, "key.pem"), "httpPort": c.HTTPPort, "tlsPort": c.TLSPort,
		"retryAfter": map[string]int{"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
		"profiles": map[string]any{"default": map[string]any{"description": "default", "validityPeriod": int(c.Valid.Seconds())}},
	}}
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "config.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Stop()
		if t.Failed() {
			t.Logf("pebble:\n%s", strings.Join(a.Log(), "\n"))
		}
	})
	a.Restart()
	return a
}

// Restart starts it with nothing in its memory, where it was stopped.
func (a *Authority) Restart() {
	a.t.Helper()
	a.cmd = exec.Command(a.binary, "-config", filepath.Join(a.dir, "config.json"), "-dnsserver", a.names)
	a.cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0")
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		a.t.Fatal(err)
	}
	a.cmd.Stderr = a.cmd.Stdout
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		for s := bufio.NewScanner(out); s.Scan(); {
			a.mu.Lock()
			a.log = append(a.log, s.Text())
			a.mu.Unlock()
		}
		cmd.Wait()
		close(done)
	}(a.cmd, a.done)
	pool := x509.NewCertPool()
	b, _ := os.ReadFile(a.CA) // certify wrote it
	pool.AppendCertsFromPEM(b)
	client := &http.Client{Timeout: time.Second, Transport: transport(pool)}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := client.Get(a.Directory)
		if err == nil {
			resp.Body.Close()
			return
		}
		if time.Now().After(end) {
			a.t.Fatalf("pebble does not answer: %v\n%s", err, strings.Join(a.Log(), "\n"))
		}
	}
}

// Stop ends it.
func (a *Authority) Stop() {
	a.cmd.Process.Signal(syscall.SIGKILL) // it may have ended
	<-a.done
}

// Log is what it has printed.
func (a *Authority) Log() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.log...)
}

// Orders counts the orders that it was given.
func (a *Authority) Orders() int {
	n := 0
	for _, l := range a.Log() {
		if strings.Contains(l, "to the db") && strings.Contains(l, "Added order") {
			n++
		}
	}
	return n
}

// certify makes the certificate by which pebble itself serves.
func (a *Authority) certify() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pebble"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		a.t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"ca.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: pk}} {
		if err := os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

// serveNames answers pebble's questions for names.
func (a *Authority) serveNames(names map[string]string) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // pebble asks by TCP
	if err != nil {
		a.t.Fatal(err)
	}
	a.names = l.Addr().String()
	s := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg)
		r.SetReply(q)
		for _, ask := range q.Question {
			to, ok := names[strings.TrimSuffix(strings.ToLower(ask.Name), ".")]
			if !ok {
				r.Rcode = dns.RcodeNameError
			} else if ask.Qtype == dns.TypeA {
				r.Answer = append(r.Answer, &dns.A{Hdr: dns.RR_Header{Name: ask.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(to)})
			}
		}
		w.WriteMsg(r) // whoever asks asks again
	})}
	go s.ActivateAndServe()
	a.t.Cleanup(func() { s.Shutdown() })
}
