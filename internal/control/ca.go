package control

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"

	"vpnd/peers"
)

const (
	caLife    = 10 * 365 * 24 * time.Hour
	leafLife  = 90 * 24 * time.Hour // browsers refuse more than 398 days
	leafSpare = 30 * 24 * time.Hour // renewed when so much is left
	skewSpare = time.Hour           // a client's clock may be that much behind
)

// newCA makes the cluster's certificate authority: ECDSA P-256, which every browser
// takes, allowed to sign servers' certificates and nothing below it.
func newCA(cluster peers.ID, now time.Time) (certDER, keyDER []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the CA's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: fmt.Sprintf("vpnd CA %x", cluster[:4])},
		NotBefore:    now.Add(-skewSpare), NotAfter: now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	certDER, err = x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the CA: %w", err)
	}
	keyDER, err = x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the CA's key: %w", err)
	}
	return certDER, keyDER, nil
}

func newSerial() (*big.Int, error) {
	b := make([]byte, 16) // 128 bits; positive and within the 20 bytes of RFC 5280
	if _, err := rand.Read(b); err != nil {
		return nil, fmt.Errorf("make a certificate's serial number: %w", err)
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b), nil
}

// issueLeaf makes a server certificate for host, a name or an address. Its key exists in
// this process alone.
func (s *Sealer) issueLeaf(set peers.Settings, host string, now time.Time) (*tls.Certificate, error) {
	ca, caKey, err := s.openCA(set)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the portal's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: host},
		NotBefore:    now.Add(-skewSpare), NotAfter: earlier(now.Add(leafLife), ca.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if ip := net.ParseIP(host); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, key.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("make the portal's certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make the portal's certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, set.CACert}, PrivateKey: key, Leaf: leaf}, nil
}

func (s *Sealer) openCA(set peers.Settings) (*x509.Certificate, crypto.Signer, error) {
	ca, err := x509.ParseCertificate(set.CACert)
	if err != nil {
		return nil, nil, fmt.Errorf("read the CA's certificate: %w", err)
	}
	der, err := s.Open(set.Cluster, fieldCA, set.CAKey)
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, nil, fmt.Errorf("read the CA's key: it is damaged") // the cause might quote it
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("read the CA's key: a %T cannot sign", key)
	}
	return ca, signer, nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// fingerprint is a certificate's SHA-256 as browsers show it.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}

// CAFingerprint is the SHA-256 of the portal's CA, in hex with colons; empty before the
// bootstrap, and where a given certificate is used.
func (s *Service) CAFingerprint() string {
	set, ok := s.View().Settings()
	if !ok || s.certs.given() {
		return ""
	}
	return fingerprint(set.CACert)
}

// CACertPEM is the CA's certificate, for people to trust; empty where CAFingerprint is.
func (s *Service) CACertPEM() []byte {
	set, ok := s.View().Settings()
	if !ok || s.certs.given() {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: set.CACert})
}
