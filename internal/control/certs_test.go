package control

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vpnd/peers"
)

// handshake speaks TLS with a server of this config, as a browser that trusts roots.
func handshake(t *testing.T, server *tls.Config, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	srv := tls.Server(a, server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.HandshakeContext(t.Context())
		a.Close()
	}()
	c := tls.Client(b, client)
	err := c.HandshakeContext(t.Context())
	b.Close()
	<-done
	return c.ConnectionState(), err
}

func TestPortalCertificate(t *testing.T) {
	w := newWorld(t)
	conf, err := w.TLSConfig("", "")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(w.CACertPEM()) {
		t.Fatal("the CA's PEM cannot be read")
	}
	client := func() *tls.Config {
		return &tls.Config{RootCAs: roots, ServerName: "vpn.example.com", Time: w.now}
	}
	st, err := handshake(t, conf, client())
	if err != nil {
		t.Fatal(err)
	}
	if st.Version != tls.VersionTLS13 || st.CurveID != tls.X25519MLKEM768 {
		t.Errorf("version %x with key exchange %v; want TLS 1.3 with X25519MLKEM768", st.Version, st.CurveID)
	}
	block, _ := pem.Decode(w.CACertPEM())
	if ca := st.PeerCertificates[1]; !bytes.Equal(ca.Raw, block.Bytes) || fingerprint(ca.Raw) != w.CAFingerprint() || len(w.CAFingerprint()) != 95 {
		t.Errorf("fingerprint %s is not of the CA that is served", w.CAFingerprint())
	}
	if life := st.PeerCertificates[0].NotAfter.Sub(st.PeerCertificates[0].NotBefore); life > 398*24*time.Hour {
		t.Errorf("a leaf of %v is refused by browsers", life)
	}
	old := client()
	old.MaxVersion = tls.VersionTLS12
	if _, err := handshake(t, conf, old); err == nil {
		t.Error("TLS 1.2 was spoken")
	}

	// The same certificate again; a new one when it nears its end, or the URL changes.
	leaf := st.PeerCertificates[0]
	if st, err = handshake(t, conf, client()); err != nil || !st.PeerCertificates[0].Equal(leaf) {
		t.Errorf("another certificate for each connection, or %v", err)
	}
	w.advance(leafLife - leafSpare + time.Minute)
	if st, err = handshake(t, conf, client()); err != nil || st.PeerCertificates[0].Equal(leaf) {
		t.Errorf("not renewed, or %v", err)
	}
	leaf = st.PeerCertificates[0]
	u := "https://[fd00::7]:8443"
	if _, _, err := w.SetSettings(t.Context(), peers.Configure{URL: &u}); err != nil {
		t.Fatal(err)
	}
	byAddress := client()
	byAddress.ServerName = "fd00::7"
	if st, err = handshake(t, conf, byAddress); err != nil || st.PeerCertificates[0].Equal(leaf) {
		t.Errorf("the URL changed, the certificate did not, or %v", err)
	}
}

// writePair makes a self-signed certificate in two files.
func writePair(t *testing.T, dir, name string, stamp time.Time) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestGivenCertificate(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	if _, err := w.TLSConfig(filepath.Join(dir, "cert.pem"), ""); err == nil {
		t.Error("a certificate without a key was taken")
	}
	if _, err := w.TLSConfig(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")); err == nil {
		t.Error("files that are not there were taken")
	}
	cert, key := writePair(t, dir, "one.example.com", time.Now().Add(-time.Hour))
	conf, err := w.TLSConfig(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if w.CAFingerprint() != "" || w.CACertPEM() != nil {
		t.Error("a CA is shown that nobody needs")
	}
	serves := func(want string) {
		t.Helper()
		c, err := conf.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil || leaf.Subject.CommonName != want {
			t.Fatalf("serves %v, %v; want %s", leaf.Subject, err, want)
		}
	}
	serves("one.example.com")
	writePair(t, dir, "two.example.com", time.Now())
	w.advance(2 * certCheck)
	serves("two.example.com")
	if err := os.WriteFile(cert, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.advance(2 * certCheck)
	serves("two.example.com")
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	w.advance(2 * certCheck)
	serves("two.example.com")
	writePair(t, dir, "three.example.com", time.Now().Add(time.Minute))
	w.advance(2 * certCheck)
	serves("three.example.com")
}
