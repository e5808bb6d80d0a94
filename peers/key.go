package peers

import (
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
)

func checkSealed(code string, s Sealed) error {
	if len(s) == 0 {
		return refuse(code + "_missing")
	}
	if len(s) > maxSealed {
		return refuse(code+"_too_large", len(s), maxSealed)
	}
	return nil
}

// lowOrder are the u-coordinates of small order on Curve25519 and its twist, and their
// spellings above p: with them every shared secret is zero. RFC 7748, section 6.1, asks
// for a check of the result instead, as ParseKey does; Apply does no cryptography.
var lowOrder = [...]Key{
	{},
	{0: 1},
	{0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
	{0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
	nearP(0xec), // p-1
	nearP(0xed), // p, another 0
	nearP(0xee), // p+1, another 1
}

// nearP is a number that differs from p = 2^255-19 in its lowest byte alone.
func nearP(lowest byte) (k Key) {
	for i := range k {
		k[i] = 0xff
	}
	k[0], k[31] = lowest, 0x7f
	return k
}

func checkKey(k Key) error {
	k[31] &= 0x7f // X25519 ignores the highest bit
	for _, bad := range lowOrder {
		if k == bad {
			return refuse("key_low_order")
		}
	}
	return nil
}

// checkNewKey refuses a public key that cannot be used, or is or was somebody's.
func (t *tx) checkNewKey(k Key) error {
	if err := checkKey(k); err != nil {
		return err
	}
	same := []Key{k}
	if t.m.Level >= levelAnswers {
		if !k.canonical() {
			return refuse("key_not_canonical")
		}
		same = k.spellings() // level 1 may have let another one in
	}
	for _, k := range same {
		if k == t.m.Settings.PublicKey {
			return refuse("key_is_gateways")
		}
		if get[Device](t, tableDevices, byKey, k[:]) != nil || get[selfTest](t, tableSelfTests, byID, k[:]) != nil {
			return refuse("key_in_use")
		}
		if get[retired](t, tableRetired, byID, k[:]) != nil {
			return refuse("key_revoked")
		}
	}
	return nil
}

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
		return ID{}, refuse("id_invalid", shorten(s))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return ID{}, refuse("id_invalid", shorten(s))
	}
	return id, nil
}

// ParseKey reads the one canonical base64 spelling of a usable public key. A key
// with which every shared secret would be zero (RFC 7748, section 6.1) is refused.
func ParseKey(s string) (Key, error) {
	var k Key
	if len(s) != base64.StdEncoding.EncodedLen(len(k)) {
		return Key{}, refuse("key_length", len(s))
	}
	b, err := base64.StdEncoding.DecodeString(s)
	// StdEncoding skips newlines and ignores stray low bits: only the spelling that
	// String would write counts.
	if err != nil || len(b) != len(k) || base64.StdEncoding.EncodeToString(b) != s {
		return Key{}, refuse("key_not_base64")
	}
	copy(k[:], b)
	if !k.canonical() {
		return Key{}, refuse("key_not_canonical")
	}
	if err := checkKey(k); err != nil {
		return Key{}, err
	}
	if err := usable(k); err != nil {
		return Key{}, refuse("key_unusable", k)
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

// X25519 ignores the highest bit of a public key and reduces it modulo p = 2^255-19 (RFC
// 7748, section 5), so that one key has two spellings, and one below 19 four. To WireGuard
// each of them is another peer; here the one that X25519 itself writes is the key.

// canonical says whether k is the spelling that X25519 writes.
func (k Key) canonical() bool { return k == k.plain() }

// plain gives the spelling that X25519 writes.
func (k Key) plain() Key {
	k[31] &= 0x7f
	if p := nearP(0xed); k[0] >= p[0] && [31]byte(k[1:]) == [31]byte(p[1:]) {
		return Key{k[0] - p[0]}
	}
	return k
}

// spellings are all that X25519 takes for the same key.
func (k Key) spellings() []Key {
	k = k.plain()
	list := []Key{k}
	if (k == Key{k[0]}) && k[0] < 19 {
		list = append(list, nearP(0xed+k[0]))
	}
	for _, k := range list {
		k[31] |= 0x80
		list = append(list, k)
	}
	return list
}

// SecondSpellings yields the devices with a key that level 2 would have refused: it is not
// spelled as X25519 writes it, or it is under another spelling a device's, the gateway's or
// revoked. It looks at all devices. There will be no more of them from level 2 on.
func (v *View) SecondSpellings() iter.Seq[*Device] {
	known := func(k Key) bool {
		return v.DeviceByKey(k) != nil || v.Retired(k) || v.m.Settings != nil && v.m.Settings.PublicKey == k
	}
	return func(yield func(*Device) bool) {
		for d := range v.Devices() {
			odd := !d.PublicKey.canonical() || slices.ContainsFunc(d.PublicKey.spellings(), func(k Key) bool {
				return k != d.PublicKey && known(k)
			})
			if odd && !yield(d) {
				return
			}
		}
	}
}
