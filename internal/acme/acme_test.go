package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vpnd/internal/acme/acmetest"
	"vpnd/internal/control"
)

const name = "vpn.example.test"

// vault is a Vault in memory.
type vault struct {
	mu     sync.Mutex
	values map[string][]byte
	locks  map[string]bool
	leads  atomic.Bool
}

func newVault() *vault {
	v := &vault{values: map[string][]byte{}, locks: map[string]bool{}}
	v.leads.Store(true)
	return v
}

func (v *vault) Load(name string) ([]byte, time.Time, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if b, ok := v.values[name]; ok {
		return b, time.Time{}, nil
	}
	return nil, time.Time{}, fs.ErrNotExist
}

func (v *vault) Stat(name string) (int64, time.Time, error) {
	b, at, err := v.Load(name)
	return int64(len(b)), at, err
}

func (v *vault) List(prefix string) (out []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for n := range v.values {
		if strings.HasPrefix(n, prefix+"/") {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

func (v *vault) Store(_ context.Context, name string, value []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.values[name] = bytes.Clone(value)
	return nil
}

func (v *vault) Delete(_ context.Context, name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for n := range v.values {
		if n == name || strings.HasPrefix(n, name+"/") {
			delete(v.values, n)
		}
	}
	return nil
}

func (v *vault) Lock(_ context.Context, name string, _ time.Duration) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.locks[name] {
		return control.ErrLocked
	}
	v.locks[name] = true
	return nil
}

func (v *vault) Unlock(_ context.Context, name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.locks, name)
	return nil
}

func (v *vault) Leads() bool { return v.leads.Load() }

// bed is a portal that pebble knows by name.
type bed struct {
	t *testing.T
	l net.Listener
	a *acmetest.Authority
	v *vault
	m atomic.Pointer[Manager]
	// host is that of the portal's URL.
	host atomic.Pointer[string]
}

func newBed(t *testing.T, valid time.Duration, names map[string]string) *bed {
	t.Helper()
	b := &bed{t: t, v: newVault()}
	var err error
	if b.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	own := httptest.NewTLSServer(nil) // stands for the own CA's certificate
	t.Cleanup(own.Close)
	s := &http.Server{Handler: http.NotFoundHandler()}
	t.Cleanup(func() { s.Close() })
	go s.Serve(tls.NewListener(b.l, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1", Protocol},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if m := b.m.Load(); m != nil {
				if c := m.Certificate(h); c != nil {
					return c, nil
				}
			}
			return &own.TLS.Certificates[0], nil
		},
	}))
	b.a = acmetest.Start(t, acmetest.Config{TLSPort: b.port(), HTTPPort: 1, Valid: valid, Names: names})
	return b
}

func (b *bed) port() int { return b.l.Addr().(*net.TCPAddr).Port }

// start is a gateway's start; stop is its end.
func (b *bed) start(host string) (m *Manager, stop func()) {
	b.t.Helper()
	pem, err := os.ReadFile(b.a.CA)
	if err != nil {
		b.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	b.host.Store(&host)
	m = New(Config{Email: "ops@example.test", Directory: b.a.Directory, Roots: roots, Port: b.port(), Host: func() string { return *b.host.Load() },
		Vault: b.v, Renew: 500 * time.Millisecond, Log: slog.New(slog.NewTextHandler(b.t.Output(), nil)), Now: time.Now})
	b.m.Store(m)
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan struct{})
	go func() { m.Run(ctx); close(done) }()
	stop = func() { cancel(); <-done }
	b.t.Cleanup(stop)
	return m, stop
}

// served is the certificate that a client gets.
func (b *bed) served() *x509.Certificate {
	b.t.Helper()
	c, err := tls.Dial("tcp", b.l.Addr().String(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0]
}

func (b *bed) eventually(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("not within a minute: %s (%+v)", what, b.m.Load().Report())
		}
	}
}

func (b *bed) issued() bool { return slices.Contains(b.served().DNSNames, name) }

// A certificate is had, kept over a restart without another order, and served by a gateway that
// does not lead.
func TestIssue(t *testing.T) {
	t.Parallel()
	b := newBed(t, 0, map[string]string{name: "127.0.0.1"})
	if b.issued() {
		t.Fatal("there is a certificate before there was an order")
	}
	m, stop := b.start(name)
	b.eventually("a certificate", b.issued)
	first := b.served()
	b.eventually("the report is clean", func() bool { r := m.Report(); return r.Problem == "" && r.End.Equal(first.NotAfter) })
	if got := m.Certificate(nil); got == nil || !got.Leaf.Equal(first) {
		t.Error("what is told of the certificate is another")
	}
	stop()
	orders := b.a.Orders()
	if orders != 1 {
		t.Errorf("%d orders for one certificate", orders)
	}
	for _, leads := range []bool{true, false} {
		b.v.leads.Store(leads)
		_, stop = b.start(name)
		b.eventually("the certificate is there again", b.issued)
		if !b.served().Equal(first) {
			t.Errorf("leads %t: after a restart there is another certificate", leads)
		}
		stop()
	}
	if n := b.a.Orders(); n != orders {
		t.Errorf("a restart cost %d orders", n-orders)
	}
	for n := range b.v.values {
		if strings.Contains(n, "challenge_tokens") {
			t.Errorf("a challenge is left: %s", n)
		}
	}
}

// It is renewed before its end; while the authority is down the old one stays.
func TestRenewal(t *testing.T) {
	t.Parallel()
	b := newBed(t, 45*time.Second, map[string]string{name: "127.0.0.1"})
	m, _ := b.start(name)
	b.eventually("a certificate", b.issued)
	first := b.served()
	b.eventually("a new one", func() bool { c := b.served(); return slices.Contains(c.DNSNames, name) && !c.Equal(first) })
	if now := time.Now(); now.After(first.NotAfter) {
		t.Errorf("it was renewed %v after its end", now.Sub(first.NotAfter))
	}
	second := b.served()
	b.a.Stop()
	b.eventually("it is said that there is no renewal", func() bool { return m.Report().Problem != "" })
	if c := b.served(); !c.Equal(second) {
		t.Error("the certificate is gone while the authority is down")
	}
	b.eventually("after its end it is not served any more", func() bool { return !b.served().Equal(second) })
}

// A name that is somebody else's, and an authority that is down: nothing breaks, and it is said why.
func TestNoCertificate(t *testing.T) {
	t.Parallel()
	b := newBed(t, 0, map[string]string{})
	m, stop := b.start(name)
	b.eventually("the authority's answer", func() bool { return strings.Contains(m.Report().Problem, name) })
	if b.issued() {
		t.Error("there is a certificate for a name that does not exist")
	}
	t.Log(m.Report().Problem)
	stop()
	b.a.Stop()
	m, stop = b.start(name)
	b.eventually("that the authority is down", func() bool { return strings.Contains(m.Report().Problem, "refused") })
	stop()
	m, stop = b.start("192.0.2.1")
	b.eventually("that an address has none", func() bool { return strings.Contains(m.Report().Problem, "--url") })
	stop()
}

// The portal gets another name: what was wrong with the former one is not told any more.
func TestAnotherName(t *testing.T) {
	t.Parallel()
	b := newBed(t, 0, map[string]string{name: "127.0.0.1", "new.example.test": "127.0.0.1"})
	m, _ := b.start("192.0.2.1")
	b.eventually("that an address has none", func() bool { return m.Report().Problem != "" })
	for _, host := range []string{"none.example.test", name, "new.example.test"} {
		b.host.Store(&host)
		if host == "none.example.test" {
			b.eventually("that this one is not found", func() bool { return strings.Contains(m.Report().Problem, host) })
			continue
		}
		b.eventually(host, func() bool { return slices.Contains(b.served().DNSNames, host) && m.Report().Problem == "" })
	}
}

// A gateway that does not lead orders nothing.
func TestOnlyALeaderOrders(t *testing.T) {
	t.Parallel()
	b := newBed(t, 0, map[string]string{name: "127.0.0.1"})
	b.v.leads.Store(false)
	b.start(name)
	time.Sleep(3 * time.Second)
	if n := b.a.Orders(); n != 0 {
		t.Errorf("%d orders", n)
	}
	b.v.leads.Store(true)
	b.eventually("a certificate once it leads", b.issued)
}

func TestStorage(t *testing.T) {
	s := storage{newVault()}
	ctx := t.Context()
	for _, k := range []string{"a/b", "a/c/d", "ab"} {
		if err := s.Store(ctx, k, []byte(k)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.List(ctx, "a", false); err != nil || !slices.Equal(got, []string{"a/b", "a/c"}) {
		t.Errorf("List: %v, %v", got, err)
	}
	if got, err := s.List(ctx, "a", true); err != nil || !slices.Equal(got, []string{"a/b", "a/c/d"}) {
		t.Errorf("List, all: %v, %v", got, err)
	}
	if _, err := s.List(ctx, "x", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("List of nothing: %v", err)
	}
	for k, want := range map[string]bool{"a": true, "a/b": true, "b": false, "a/c": true} {
		if s.Exists(ctx, k) != want {
			t.Errorf("Exists(%s) is not %t", k, want)
		}
		info, err := s.Stat(ctx, k)
		if (err == nil) != want || want && info.IsTerminal != (k == "a/b") {
			t.Errorf("Stat(%s): %+v, %v", k, info, err)
		}
	}
	if err := s.Lock(ctx, "l"); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := s.Lock(short, "l"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second lock: %v", err)
	}
}
