package peers

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// start is a fixed moment: nothing here reads a clock.
var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// cluster drives a State as Raft would.
type cluster struct {
	testing.TB
	*State
	index uint64
	now   time.Time
	log   [][]byte
}

func newCluster(t testing.TB, network ...string) *cluster {
	t.Helper()
	c := emptyCluster(t)
	must(c, Init{settings(network...), "{}"})
	must(c, Upgrade{Level: newestLevel})
	return c
}

func emptyCluster(t testing.TB) *cluster { return &cluster{TB: t, State: New(), now: start} }

func settings(network ...string) Settings {
	if len(network) == 0 {
		network = []string{"10.77.0.0/16", "fd00:77::/64"}
	}
	s := Settings{Cluster: id("cluster"), Created: start, PrivateKey: Sealed("sealed gateway key"), PublicKey: key("gateway"),
		CAKey: Sealed("sealed CA key"), CACert: []byte("certificate"), Endpoint: "vpn.example.com:51820",
		URL: "https://vpn.example.com:8443", Session: 12 * time.Hour, Masquerade: true}
	for _, n := range network {
		s.Network = append(s.Network, netip.MustParsePrefix(n))
	}
	return s
}

// do carries a command out and returns its result, refused or not.
func (c *cluster) do(b Body) Result {
	c.Helper()
	return c.command(Command{At: c.now, Actor: "test", Body: b})
}

func (c *cluster) command(cmd Command) Result {
	c.Helper()
	if !cmd.Request.IsZero() && cmd.Base == 0 {
		cmd.Base = c.View().Request(cmd.Request).Base
	}
	raw, err := Encode(cmd)
	if err != nil {
		c.Fatal(err)
	}
	c.index++
	r, err := c.Apply(c.index, raw)
	if err != nil {
		c.Fatal(err)
	}
	c.log = append(c.log, raw)
	return r
}

// must carries a command out that must not be refused.
func must(c *cluster, b Body) Result {
	c.Helper()
	r := c.do(b)
	if r.Err != nil {
		c.Fatalf("%T was refused: %v", b, r.Err)
	}
	return r
}

// refused carries a command out that must be refused for this reason, with nothing changed.
func refused(c *cluster, b Body, reason error) Result {
	c.Helper()
	before := c.contents()
	r := c.do(b)
	if !errors.Is(r.Err, reason) {
		c.Fatalf("%T: got error %v, want %v", b, r.Err, reason)
	}
	if r.Err.Error() == reason.Error() {
		c.Fatalf("%T: the error %q does not name the thing", b, r.Err)
	}
	if !bytes.Equal(before, c.contents()) {
		c.Fatalf("%T was refused and changed something", b)
	}
	return r
}

// contents are the snapshot's bytes without index and time, which refusals move.
func (c *cluster) contents() []byte {
	v := *c.View()
	v.m.Index, v.m.Time = 0, 0
	var b bytes.Buffer
	if _, err := v.WriteTo(&b); err != nil {
		c.Fatal(err)
	}
	return b.Bytes()
}

func (c *cluster) snapshot() []byte {
	var b bytes.Buffer
	n, err := c.Snapshot().WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		c.Fatalf("WriteTo: %d bytes said, %d written, %v", n, b.Len(), err)
	}
	return b.Bytes()
}

// id, key and hash make the same value of the same name.
func id(name string) (i ID) {
	s := sha256.Sum256([]byte("id " + name))
	copy(i[:], s[:])
	return i
}

func key(name string) (k Key) {
	k = sha256.Sum256([]byte("key " + name))
	k[31] &= 0x7f // as X25519 writes it
	return k
}

func hash(name string) [32]byte { return sha256.Sum256([]byte("hash " + name)) }

func number(name string, n int) string { return fmt.Sprintf("%s-%d", name, n) }

func invitation(name string) NewInvitation {
	return NewInvitation{id("invitation " + name), hash(name), start.Add(48 * time.Hour)}
}

// device is a new device; the user's name makes its id and key hers.
func device(user, name string) NewDevice {
	psk := sha256.Sum256([]byte("psk " + user + name))
	return NewDevice{ID: id(user + "/" + name), Name: name, PublicKey: key(user + "/" + name), PresharedKey: append(Sealed("twelve bytes and a tag of 16"), psk[:]...)}
}

// step is the TOTP step of now plus n.
func (c *cluster) step(n int64) int64 { return c.now.Unix()/30 + n }

// enrol adds a user with a device by an invitation, as the portal does.
func enrol(c *cluster, user, dev string) (*User, *Device) {
	c.Helper()
	inv := invitation(user)
	must(c, UserAdd{ID: id(user), Name: user, Invitation: &inv})
	must(c, EnrolBegin{inv.ID, hash("browser"), Sealed("48 bytes, as a sealed secret has: " + user)})
	r := must(c, EnrolFinish{inv.ID, hash("browser"), c.step(0), device(user, dev)})
	return r.User, r.Device
}
