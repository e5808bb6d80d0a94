package peers

import (
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

// Key is a WireGuard public key: a Curve25519 u-coordinate, RFC 7748.
type Key [32]byte

// ID is 16 random bytes that name an object for ever; it prints as 32 hex digits.
type ID [16]byte

// Sealed is a secret encrypted under the sealing key; State cannot read it.
type Sealed []byte

// String gives the base64 spelling that wg(8) uses.
func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// String gives 32 hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero says whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// ParseID reads what ID.String wrote: 32 lower-case hex digits.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, refuse(ErrInvalid, "id %q: an id is 32 hex digits", shorten(s))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return ID{}, refuse(ErrInvalid, "id %q: an id is 32 lower-case hex digits", shorten(s))
	}
	return id, nil
}

const keyRule = "a WireGuard public key is the 44 characters that `wg pubkey` prints"

// ParseKey reads the one canonical base64 spelling of a usable public key. A key
// with which every shared secret would be zero (RFC 7748, section 6.1) is refused.
func ParseKey(s string) (Key, error) {
	var k Key
	if len(s) != base64.StdEncoding.EncodedLen(len(k)) {
		return Key{}, refuse(ErrInvalid, "public key has %d characters: %s", len(s), keyRule)
	}
	b, err := base64.StdEncoding.DecodeString(s)
	// StdEncoding skips newlines and ignores stray low bits: only the spelling that
	// String would write counts.
	if err != nil || len(b) != len(k) || base64.StdEncoding.EncodeToString(b) != s {
		return Key{}, refuse(ErrInvalid, "public key is not canonical base64: %s", keyRule)
	}
	copy(k[:], b)
	if err := checkKey(k); err != nil {
		return Key{}, err
	}
	if err := usable(k); err != nil {
		return Key{}, refuse(ErrInvalid, "public key %s cannot be used: %v; make a new one with `wg genkey`", k, err)
	}
	return k, nil
}

// usable tries a key exchange, which fails where the shared secret would be zero.
// The private scalar does not matter for that; this one is a constant.
func usable(k Key) error {
	scalar := [32]byte{0: 8, 31: 64}
	private, err := ecdh.X25519().NewPrivateKey(scalar[:])
	if err != nil {
		return fmt.Errorf("making a test key: %w", err)
	}
	public, err := ecdh.X25519().NewPublicKey(k[:])
	if err != nil {
		return fmt.Errorf("reading it as X25519: %w", err)
	}
	if _, err := private.ECDH(public); err != nil {
		return fmt.Errorf("it is a low-order point: %w", err)
	}
	return nil
}
