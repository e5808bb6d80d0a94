package control

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"time"

	"vpnd/internal/owner"
)

// certCheck is how often files are looked at for a change.
const certCheck = time.Second

// certificates holds the portal's certificate: one of the own CA for the URL's host, or
// the one of two files.
type certificates struct {
	s *Service

	mu        sync.Mutex
	certFile  string // empty: the own CA
	keyFile   string
	issued    func(*tls.ClientHelloInfo) *tls.Certificate // from an authority; nil, or gives nil: none
	checked   time.Time                                   // when the files were last looked at
	seen      [2]fileStamp                                // as they were then
	current   *tls.Certificate
	host      string // that current is for; own CA only
	authority string // fingerprint of the CA that signed it
}

// fileStamp changes when a file is written or replaced.
type fileStamp struct {
	modified time.Time
	size     int64
}

func newCertificates(s *Service) *certificates { return &certificates{s: s} }

// given says whether the portal's certificate is of another authority than our own.
func (c *certificates) given() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.certFile != "" || c.issued != nil && c.issued(nil) != nil
}

// UseIssued lets the portal serve what an authority has issued (ACME), while there is something,
// and the answers to its challenges. It is called before TLSConfig. The function is called with
// nil for what an ordinary client gets.
func (s *Service) UseIssued(f func(*tls.ClientHelloInfo) *tls.Certificate) {
	s.certs.mu.Lock()
	defer s.certs.mu.Unlock()
	s.certs.issued = f
}

// TLSConfig is the portal's: TLS 1.3 alone. With both files it serves their pair, read
// again when they change; with neither, a certificate of the own CA for the URL's host.
//
// CurvePreferences stays unset on purpose: Go then prefers the hybrid X25519MLKEM768,
// which keeps the preshared keys that this connection carries secret from whoever
// records it for a later quantum computer.
func (s *Service) TLSConfig(certFile, keyFile string) (*tls.Config, error) {
	if (certFile == "") != (keyFile == "") {
		return nil, errors.New("--cert and --key belong together: give both, or neither for a certificate of vpnd's own")
	}
	s.certs.mu.Lock()
	s.certs.certFile, s.certs.keyFile, s.certs.current = certFile, keyFile, nil
	s.certs.mu.Unlock()
	if _, err := s.certs.get(nil); err != nil {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: s.certs.get}
	if s.certs.issued != nil {
		t.NextProtos = []string{"http/1.1", "acme-tls/1"} // the latter for a challenge (RFC 8737)
	}
	return t, nil
}

// get is tls.Config.GetCertificate. The name that the client asks for plays no part:
// the portal has one name, and answers no other.
func (c *certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.issued != nil {
		if cert := c.issued(hello); cert != nil {
			return cert, nil
		}
	}
	if c.certFile != "" {
		return c.fromFilesLocked()
	}
	return c.ownLocked()
}

func (c *certificates) ownLocked() (*tls.Certificate, error) {
	set, ok := c.s.View().Settings()
	if !ok {
		return nil, errors.New("the cluster has not been made yet, so there is no certificate")
	}
	u, err := url.Parse(set.URL)
	if err != nil || u.Hostname() == "" {
		return nil, fmt.Errorf("the portal's URL %q names no host: set another with --url", set.URL)
	}
	host, ca, now := u.Hostname(), fingerprint(set.CACert), c.s.now()
	if c.current != nil && c.host == host && c.authority == ca && now.Before(c.current.Leaf.NotAfter.Add(-leafSpare)) &&
		!now.Before(c.current.Leaf.NotBefore) {
		return c.current, nil
	}
	leaf, err := c.s.sealer.issueLeaf(set, host, now)
	if err != nil {
		return nil, err
	}
	c.current, c.host, c.authority = leaf, host, ca
	return leaf, nil
}

// fromFilesLocked reads the pair again when it has changed. A pair that does not fit
// (one file is new, the other not yet) leaves the former in use.
func (c *certificates) fromFilesLocked() (*tls.Certificate, error) {
	now := c.s.now()
	if c.current != nil && now.Sub(c.checked).Abs() < certCheck {
		return c.current, nil
	}
	seen, err := stampFiles(c.certFile, c.keyFile)
	if err == nil && c.current != nil && seen == c.seen {
		c.checked = now
		return c.current, nil
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = loadPair(c.certFile, c.keyFile)
	}
	c.checked = now
	if err != nil {
		if c.current == nil {
			return nil, fmt.Errorf("read the certificate %s with the key %s: %w", c.certFile, c.keyFile, err)
		}
		c.s.log.Warn("the portal goes on with the former certificate, as the new one cannot be read", "what", "certificate.read", "file", c.certFile, "key", c.keyFile, "why", err)
		return c.current, nil
	}
	c.current, c.seen = &pair, seen
	return c.current, nil
}

// maxPEM bounds a certificate with its chain, and a key: 1 MiB.
const maxPEM = 1 << 20

// loadPair reads a certificate and its key. Debian's services share their keys through the
// group ssl-cert.
func loadPair(certFile, keyFile string) (pair tls.Certificate, err error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return pair, err
	}
	key, err := owner.Self().Read(keyFile, "the certificate's key", owner.Access{Group: "ssl-cert"}, maxPEM)
	if err != nil {
		return pair, err
	}
	return tls.X509KeyPair(cert, key)
}

func stampFiles(paths ...string) (seen [2]fileStamp, err error) {
	for i, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return seen, err
		}
		seen[i] = fileStamp{info.ModTime(), info.Size()}
	}
	return seen, nil
}
