package linux

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

const policy = `{"grants": [{"src": ["autogroup:member"], "dst": ["192.0.2.0/24", "2001:db8:2::/64"], "ip": ["*"]}]}`

func compilePolicy(t *testing.T, devices ...dataplane.Device) *rules.Ruleset {
	t.Helper()
	p, err := language.Parse([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	var subjects []rules.Subject
	for _, d := range devices {
		subjects = append(subjects, rules.Subject{Device: d.Name, User: strings.Split(d.Name, "/")[0], Addrs: d.Addrs})
	}
	r, err := rules.Compile(p, rules.Options{Network: network, Gateway: gwAddrs, Session: time.Hour}, subjects)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Both halves of the plane together: a real client signs in, is cut off, comes back as
// another device with the same address; the host is as before at the end.
func TestWholePlane(t *testing.T) {
	b := newBed(t)
	before := snapshot(t)
	key := newKey(t)
	dev, private := testDevice(t, 2)
	gw := gateway(key)
	gw.Masquerade = true
	s := dataplane.State{Gateway: gw, Devices: []dataplane.Device{dev}, Rules: compilePolicy(t, dev)}
	p := b.plane(Options{}, s)
	l, err := p.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "portal")
			c.Close()
		}
	}()
	b.connect(dev, private, key)
	session := func(d dataplane.Device, serial uint32) dataplane.Session {
		now := time.Now()
		return dataplane.Session{Device: d.ID, Addrs: d.Addrs, Until: now.Add(time.Hour), Codes: []dataplane.Code{{Serial: serial, At: now}}}
	}
	portal := func(to string) string {
		out, _ := try(fmt.Sprintf("ip netns exec client timeout 3 nc -d %s 80", to))
		return out
	}
	reach := func(want bool, when string) {
		t.Helper()
		for i, to := range []string{"192.0.2.2", "2001:db8:2::2"} {
			if got := b.pings(to); got != want {
				t.Errorf("%s: an answer from %s: %v", when, to, got)
			}
			echo := dataplane.Flow{Src: dev.Addrs[i], Dst: netip.MustParseAddr(to), Proto: []uint8{1, 58}[i]}
			if got, err := p.Permits(t.Context(), echo); err != nil || got != want {
				t.Errorf("%s: Permits says of %s: %v, %v", when, to, got, err)
			}
		}
	}
	eventually(t, "the portal", func() bool { return portal("10.77.0.1") == "portal" })
	for _, to := range []string{"fd77::1", "192.0.2.2", "2001:db8:2::2"} {
		if got := portal(to); got != "portal" {
			t.Errorf("before the sign-in http://%s gives %q", to, got)
		}
	}
	reach(false, "before the sign-in")
	update := func(c dataplane.Change) {
		t.Helper()
		if err := p.Update(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	in := session(dev, 1)
	update(dataplane.Change{PutSessions: []dataplane.Session{in}})
	reach(true, "signed in")
	run(t, "nft flush ruleset")
	// Older kernels lose the table and get it back; newer ones keep it.
	eventually(t, "passing after a foreign flush", func() bool { return b.pings("192.0.2.2") })
	b.mu.Lock()
	b.drift = nil
	b.mu.Unlock()
	update(dataplane.Change{EndSessions: []dataplane.Session{in}})
	reach(false, "signed out")
	update(dataplane.Change{PutSessions: []dataplane.Session{session(dev, 2)}})
	reach(true, "signed in again")

	// The device is removed, and another gets its address in the same change: the old
	// key is worth nothing, and its session is not the newcomer's.
	heir, heirPrivate := testDevice(t, 2)
	heir.Name, heir.ID = "heir/phone", "other"
	update(dataplane.Change{RemoveDevices: []dataplane.Device{dev}, PutDevices: []dataplane.Device{heir}, Rules: compilePolicy(t, heir)})
	if out := run(t, "wg show vpn0 allowed-ips"); out != b64(heir.PublicKey)+"\t10.77.0.2/32 fd77::2/128" {
		t.Errorf("peers: %s", out)
	}
	reach(false, "with the removed device's key")
	for _, line := range []string{
		fmt.Sprintf("echo %s > /run/heir; wg set wgc0 private-key /run/heir", b64(heirPrivate)),
		fmt.Sprintf("echo %s > /run/psk; wg set wgc0 peer %s preshared-key /run/psk", b64(heir.PresharedKey), b64(pub(key))),
	} {
		run(t, line)
	}
	eventually(t, "the portal for the newcomer", func() bool { return portal("10.77.0.1") == "portal" })
	reach(false, "the newcomer before signing in")
	update(dataplane.Change{PutSessions: []dataplane.Session{session(heir, 3)}})
	reach(true, "the newcomer signed in")

	// The same State again interrupts nothing.
	if err := p.Set(t.Context(), dataplane.State{Gateway: gw, Devices: []dataplane.Device{heir}, Rules: compilePolicy(t, heir), Sessions: []dataplane.Session{session(heir, 3)}}); err != nil {
		t.Fatal(err)
	}
	reach(true, "after the same Set")
	st, err := p.Stats(t.Context())
	if err != nil || len(st.Peers) != 1 || st.Plane != "linux" || !strings.Contains(st.Detail, " on vpn0, MTU 1420; nftables") {
		t.Errorf("Stats: %+v, %v", st, err)
	}
	t.Log(st.Detail)
	b.mu.Lock()
	if len(b.drift) > 0 {
		t.Errorf("drift that nobody caused: %v", b.drift)
	}
	b.mu.Unlock()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if after := snapshot(t); after != before {
		t.Errorf("the host is not as it was:\n%s", diff(t, before, after))
	}
	if b.pings("10.77.0.1") {
		t.Error("the gateway answers after its stop")
	}
}

// TestNoMasqueradingIsSaid: with masquerading off, what the networks behind need is said.
func TestNoMasqueradingIsSaid(t *testing.T) {
	g := gateway(newKey(t))
	p := &Plane{ipv6: true, want: newDesired(dataplane.State{Gateway: g})}
	const need = "the networks behind need a route to 10.77.0.0/16 and fd77::/64 by way of this gateway"
	if got := p.detailLocked(); !strings.Contains(got, need) {
		t.Errorf("masquerading is off: %q", got)
	}
	g.Masquerade = true
	p.want = newDesired(dataplane.State{Gateway: g})
	if got := p.detailLocked(); strings.Contains(got, "masquerading") {
		t.Errorf("masquerading is on: %q", got)
	}
}
