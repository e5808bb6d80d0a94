package linux

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"vpnd/internal/dataplane"
)

// Somebody deletes the interface, sets it down or removes the peer: the client, who has noticed nothing,
// is answered again within 2 s. Its own timers would take 15 s for a new handshake.
func TestTunnelOutlivesItsInterface(t *testing.T) {
	b := newBed(t)
	key := newKey(t)
	dev, private := testDevice(t, 2)
	p := b.plane(b.options(), dataplane.State{Gateway: gateway(key), Devices: []dataplane.Device{dev}})
	b.connect(dev, private, key)
	eventually(t, "an answer from behind the gateway", func() bool { return b.pings("192.0.2.2") })
	time.Sleep(2 * checkInterval) // a kernel device is polled: it is known where the client is
	for _, do := range []string{"ip link del vpn0", "ip link set vpn0 down", "ip link set vpn0 down; ip link set vpn0 name other0",
		"wg set vpn0 peer " + b64(dev.PublicKey) + " remove"} {
		ping := exec.Command("ip", "netns", "exec", "client", "ping", "-i0.2", "-w"+strconv.Itoa(int(4*slow())), "192.0.2.2")
		time.AfterFunc(500*time.Millisecond, func() {
			if out, err := try(do); err != nil {
				t.Errorf("%s: %v %s", do, err, out)
			}
		})
		out, err := ping.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", do, err, out)
		}
		if got := longestGap(t, string(out)); got > 2*time.Second*slow() {
			t.Errorf("%s: no answer for %v\n%s", do, got, out)
		} else {
			t.Logf("%s: no answer for %v", do, got)
		}
	}
	if s, err := p.Stats(t.Context(), dev.PublicKey); err != nil || len(s.Peers) != 1 {
		t.Errorf("Stats: %+v, %v", s, err)
	}
}

var icmpSeq = regexp.MustCompile(`icmp_seq=(\d+) ttl`)

// longestGap is the time without answers in what ping printed, also at its end.
func longestGap(t *testing.T, out string) time.Duration {
	t.Helper()
	last, gap := 0, 0
	for _, m := range icmpSeq.FindAllStringSubmatch(out, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		gap, last = max(gap, n-last-1), n
	}
	sent := regexp.MustCompile(`(\d+) packets transmitted`).FindStringSubmatch(out)
	if sent == nil {
		t.Fatalf("ping printed\n%s", out)
	}
	n, _ := strconv.Atoi(sent[1])
	return time.Duration(max(gap, n-last-1)) * 200 * time.Millisecond
}

// The plane's methods may be called concurrently, and while things are put right.
func TestConcurrentUse(t *testing.T) {
	b := newBed(t)
	devices := manyDevices(50)
	gw := gateway(newKey(t))
	p := b.plane(b.options(), dataplane.State{Gateway: gw, Devices: devices[:10]})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 20 {
				d := devices[10+10*i+n%10]
				if err := p.Update(t.Context(), dataplane.Change{PutDevices: []dataplane.Device{d}}); err != nil {
					t.Error("put:", err)
				}
				if _, err := p.Stats(t.Context(), d.PublicKey); err != nil {
					t.Error("Stats:", err)
				}
				if err := p.Update(t.Context(), dataplane.Change{RemoveDevices: []dataplane.Device{d}}); err != nil {
					t.Error("remove:", err)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 5 {
			run(t, fmt.Sprintf("wg set vpn0 peer %s remove", b64(devices[i].PublicKey)))
			if err := p.Set(t.Context(), dataplane.State{Gateway: gw, Devices: devices[:10]}); err != nil {
				t.Error("Set:", err)
			}
			l, err := p.Listen(t.Context())
			if err != nil {
				t.Error("Listen:", err)
				return
			}
			l.Close()
		}
	})
	wg.Wait()
	if err := p.Set(t.Context(), dataplane.State{Gateway: gw, Devices: devices[:10]}); err != nil {
		t.Error("Set:", err)
	}
	eventually(t, "the ten peers, and no others", func() bool {
		return len(strings.Fields(run(t, "wg show vpn0 peers"))) == 10
	})
}
