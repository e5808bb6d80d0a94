package control

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"vpnd/internal/dataplane"
	"vpnd/peers"
)

// The fields that are sealed, and those of the vault (vault.go). Owner is the cluster for the
// gateway's keys and for the vault, the user for a TOTP secret (pending or confirmed: it moves from the invitation to the user as it
// is), and the device for a preshared key.
const (
	fieldWireGuard = "wireguard.private-key"
	fieldCA        = "ca.private-key"
	fieldTOTP      = "totp.secret"
	fieldPSK       = "device.preshared-key"
)

const (
	sealVersion = 1
	sealKeySize = 32 // AES-256
)

// ErrSealed means that a sealed value does not open: it was sealed with another key, for
// another owner or field, or was changed.
var ErrSealed = errors.New("the sealing key does not open this value")

// Sealer seals secrets with AES-256-GCM. Owner and field are its additional data, so
// that a sealed value cannot be moved to another place.
//
// A sealed value is one version byte, a random 96-bit nonce, the ciphertext and the tag.
// Random nonces are safe for 2^32 values under one key (NIST SP 800-38D, 8.3).
type Sealer struct{ aead cipher.AEAD }

// NewSealer takes a 32-byte key.
func NewSealer(key []byte) (*Sealer, error) {
	if len(key) != sealKeySize {
		return nil, fmt.Errorf("a sealing key has %d bytes, this one has %d", sealKeySize, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("use the sealing key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("use the sealing key: %w", err)
	}
	return &Sealer{aead: aead}, nil
}

// Seal encrypts.
func (s *Sealer) Seal(owner peers.ID, field string, plain []byte) (peers.Sealed, error) {
	out := make([]byte, 1+s.aead.NonceSize(), 1+s.aead.NonceSize()+len(plain)+s.aead.Overhead())
	out[0] = sealVersion
	nonce := out[1:]
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("seal %s: %w", field, err)
	}
	return s.aead.Seal(out, nonce, plain, sealAD(owner, field)), nil
}

// Open decrypts what Seal made for the same owner and field.
func (s *Sealer) Open(owner peers.ID, field string, sealed peers.Sealed) ([]byte, error) {
	head := 1 + s.aead.NonceSize()
	if len(sealed) < head+s.aead.Overhead() || sealed[0] != sealVersion {
		return nil, fmt.Errorf("open %s: %w", field, ErrSealed)
	}
	plain, err := s.aead.Open(nil, sealed[1:head], sealed[head:], sealAD(owner, field))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", field, ErrSealed)
	}
	return plain, nil
}

// plainSize is how long what was sealed is.
func (s *Sealer) plainSize(sealed peers.Sealed) int {
	return max(0, len(sealed)-1-s.aead.NonceSize()-s.aead.Overhead())
}

// sealAD is version, owner and field: the first two have a fixed length, so no two
// places share a spelling.
func sealAD(owner peers.ID, field string) []byte {
	ad := make([]byte, 0, 1+len(owner)+len(field))
	ad = append(ad, sealVersion)
	ad = append(ad, owner[:]...)
	return append(ad, field...)
}

// GatewayKey unseals the gateway's WireGuard private key.
func (s *Sealer) GatewayKey(set peers.Settings) (dataplane.Key, error) {
	return s.key32(set.Cluster, fieldWireGuard, set.PrivateKey)
}

// PresharedKey unseals a device's preshared key.
func (s *Sealer) PresharedKey(d *peers.Device) (dataplane.Key, error) {
	return s.key32(d.ID, fieldPSK, d.PresharedKey)
}

func (s *Sealer) key32(owner peers.ID, field string, sealed peers.Sealed) (k dataplane.Key, err error) {
	plain, err := s.Open(owner, field, sealed)
	if err != nil {
		return k, err
	}
	if len(plain) != len(k) {
		return k, fmt.Errorf("open %s: it has %d bytes instead of %d", field, len(plain), len(k))
	}
	copy(k[:], plain)
	return k, nil
}
