// Package acme gets the portal's certificate from an authority that speaks ACME (RFC 8555), and
// renews it in time. The work is certmagic's; its storage is the replicated state, so that every
// gateway serves the same certificate and any of them answers a challenge, and only the one
// that leads orders.
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// LetsEncrypt is the directory that is asked where no other is named.
const LetsEncrypt = certmagic.LetsEncryptProductionCA

// Protocol is what a client names in ALPN to see the answer to a challenge (RFC 8737).
const Protocol = "acme-tls/1"

// look is how often it is seen whether the portal has another name or this gateway leads now.
const look = time.Second

// Config is what a Manager works with.
type Config struct {
	Email     string         // of the account, for the authority's warnings
	Directory string         // the authority's directory, a URL
	Roots     *x509.CertPool // whom the directory's TLS is trusted by; nil: the host's
	Port      int            // of the portal, where TLS-ALPN is answered
	HTTP      bool           // port 80 leads to Challenges
	Host      func() string  // of the portal's URL; empty while there is none
	Vault     Vault          // where all of it is kept
	Renew     time.Duration  // how often ends are looked at; 0: certmagic's 10 minutes
	Log       *slog.Logger   // one line for each thing that happened
	Now       func() time.Time
}

// Manager keeps one certificate, for the host of the portal's URL.
type Manager struct {
	c      Config
	cache  *certmagic.Cache
	magic  *certmagic.Config
	issuer *certmagic.ACMEIssuer

	mu      sync.Mutex
	problem string // what the last try came to; empty after one that succeeded
}

// Report is how it stands.
type Report struct {
	Host    string    // whose certificate it is
	End     time.Time // of the certificate; zero: there is none
	Problem string    // what keeps a certificate from being had or renewed; empty: nothing does
}

// New makes a Manager; nothing is ordered before Run.
func New(c Config) *Manager {
	m := &Manager{c: c}
	quiet := zap.NewNop() // what it has to say comes as events, and is logged as ours
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return m.magic, nil },
		RenewCheckInterval: c.Renew,
		Logger:             quiet,
	})
	m.magic = certmagic.New(m.cache, certmagic.Config{
		Storage:             storage{c.Vault},
		DisableStorageCheck: true, // it writes and deletes at every start; the state is known to work
		OCSP:                certmagic.OCSPConfig{DisableStapling: true},
		OnEvent:             m.event,
		Logger:              quiet,
	})
	m.issuer = certmagic.NewACMEIssuer(m.magic, certmagic.ACMEIssuer{
		CA: c.Directory, Email: c.Email, Agreed: true, TrustedRoots: c.Roots,
		DisableHTTPChallenge: !c.HTTP, AltTLSALPNPort: c.Port, Logger: quiet,
	})
	m.magic.Issuers = []certmagic.Issuer{m.issuer}
	return m
}

// Run orders and renews until ctx ends.
func (m *Manager) Run(ctx context.Context) {
	defer m.cache.Stop()
	t := time.NewTicker(look)
	defer t.Stop()
	var managed string // the name that certmagic has been told to look after
	for {
		host, err := m.host()
		switch {
		case err != nil:
			m.fails(err.Error())
		case host == managed:
		case m.c.Vault.Leads():
			// What went wrong with another name is over, and that one is renewed no more.
			m.settled()
			if managed != "" {
				m.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: managed}})
			}
			// What the vault has is loaded, and ordered is only what it lacks.
			if err := m.magic.ManageAsync(ctx, []string{host}); err != nil {
				m.fails(err.Error())
			} else {
				managed = host
			}
		default: // the one that leads may have put it there
			m.magic.CacheManagedCertificate(ctx, host) // nothing there is no error of ours
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// host is the name that a certificate is for.
func (m *Manager) host() (string, error) {
	h := m.c.Host()
	if h == "" {
		return "", errors.New("the portal's URL names no host: say vpnctl settings set --url https://NAME")
	}
	if _, err := netip.ParseAddr(h); err == nil {
		return "", fmt.Errorf("the portal's URL names the address %s, and certificates are for names: say vpnctl settings set --url https://NAME", h)
	}
	return h, nil
}

// event is told by certmagic what happens.
func (m *Manager) event(_ context.Context, event string, data map[string]any) error {
	host, _ := data["identifier"].(string)
	switch event {
	case "cert_obtaining":
		if !m.c.Vault.Leads() {
			return errors.New("another gateway leads, and orders")
		}
		m.c.Log.Info("ordering a certificate", "what", "acme.order", "host", host, "from", m.c.Directory)
	case "cert_obtained":
		m.settled()
		m.c.Log.Info("the certificate is there", "what", "acme.certificate", "host", host, "renewal", data["renewal"])
	case "cert_failed":
		if err, ok := data["error"].(error); ok && host == m.c.Host() {
			m.fails(err.Error())
		}
	}
	return nil
}

// settled forgets what went wrong.
func (m *Manager) settled() {
	m.mu.Lock()
	m.problem = ""
	m.mu.Unlock()
}

// fails keeps and logs what went wrong, once for each thing that does.
func (m *Manager) fails(why string) {
	m.mu.Lock()
	news := m.problem != why
	m.problem = why
	m.mu.Unlock()
	if news {
		m.c.Log.Warn("no new certificate", "what", "acme.failed", "host", m.c.Host(), "why", why)
	}
}

// Report says how it stands.
func (m *Manager) Report() Report {
	r := Report{Host: m.c.Host()}
	if c := m.cached(); c != nil {
		r.End = c.Leaf.NotAfter
	}
	m.mu.Lock()
	r.Problem = m.problem
	m.mu.Unlock()
	return r
}

// Certificate is the one to show for a handshake: the answer to a challenge, or the portal's; nil
// where there is none that is still good. hello may be nil.
func (m *Manager) Certificate(hello *tls.ClientHelloInfo) *tls.Certificate {
	if hello != nil && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == Protocol {
		c, err := m.magic.GetCertificateWithContext(context.Background(), hello)
		if err != nil {
			return nil
		}
		return c
	}
	return m.cached()
}

func (m *Manager) cached() *tls.Certificate {
	host := m.c.Host()
	if host == "" {
		return nil
	}
	now := m.c.Now()
	var best *tls.Certificate
	for _, c := range m.cache.AllMatchingCertificates(host) {
		if c.Leaf == nil || now.After(c.Leaf.NotAfter) || !slices.Contains(c.Names, host) {
			continue
		}
		if best == nil || c.Leaf.NotAfter.After(best.Leaf.NotAfter) {
			best = &c.Certificate
		}
	}
	return best
}

// Challenges answers HTTP-01 on port 80, and leads all else to next.
func (m *Manager) Challenges(next http.Handler) http.Handler {
	return m.issuer.HTTPChallengeHandler(next)
}
