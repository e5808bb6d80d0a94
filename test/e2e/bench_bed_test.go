package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	vpnv1 "vpnd/proto/vpn/v1"
)

// benchPolicy lets everybody reach the private network's host, as the first policy lets
// her reach the app. more are further grants.
func benchPolicy(more ...string) string {
	return `{"grants": [
	{"src": ["autogroup:member"], "dst": ["app"], "ip": ["tcp:8080"]},
	{"src": ["autogroup:member"], "dst": ["` + lan4 + `"], "ip": ["udp:9000", "tcp:5201"]},
	` + strings.Join(more, ",\n\t") + `]}`
}

// bed is a world whose vpnd has n devices in its state, on a real disk.
type bed struct {
	*world
	n    int
	data string // vpnd's data folder
	disk *os.File
	conn *grpc.ClientConn
	vm   *impersonator
	seq  int // people made so far
}

// newBed fills the state and gives everybody a session; vpnd does not run yet.
func newBed(t *testing.T, dir string, n int, policy string) *bed {
	t.Helper()
	b := &bed{world: newWorld(t, "linux"), n: n}
	b.data = filepath.Join(dir, fmt.Sprintf("%d-%d", b.id, n))
	if err := os.MkdirAll(b.data, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.disk, err = os.Create(filepath.Join(b.data, "fsync")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.disk.Close() })
	b.args = []string{"--data", filepath.Join(b.data, "state"), "--network", benchNetwork + ",fd77::/64", "--routes", "198.51.100.0/24"}
	b.lan.run("ip", "route", "add", benchNetwork, "via", "198.51.100.1")
	f := fill(t, filepath.Join(b.data, "state"), b.path("sealing.key"), policy, n)
	f.close()
	return b
}

// signInAll gives everybody a session, while vpnd does not run.
func (b *bed) signInAll() {
	b.t.Helper()
	f := openFiller(b.t, filepath.Join(b.data, "state"), b.path("sealing.key"))
	for d := range f.store.State().View().Devices() {
		f.ids = append(f.ids, d.ID)
	}
	f.signInAll()
	f.close()
}

// memory measures the live heap of what grows with the devices.
func (b *bed) memory() (h heap) {
	b.t.Helper()
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	job, err := json.Marshal(memoryJob{filepath.Join(b.data, "state"), b.path("sealing.key"), b.iface})
	if err != nil {
		b.t.Fatal(err)
	}
	p := b.gw.start([]string{"VPND_E2E_MEMORY=" + string(job)}, self, "-test.run", "^$")
	select {
	case <-p.done:
	case <-time.After(2 * time.Minute):
		b.t.Fatalf("measuring memory takes too long:\n%s", p.log)
	}
	log := p.log.String()
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &h) == nil {
			return h
		}
	}
	b.t.Fatalf("measuring memory:\n%s", log)
	return h
}

// serve starts vpnd and says how long it took until it served.
func (b *bed) serve() time.Duration {
	b.t.Helper()
	begin := time.Now()
	b.vpnd = b.gw.start(nil, b.vpndArgs()...)
	for !strings.Contains(b.vpnd.log.String(), "is ready") {
		select {
		case <-b.vpnd.done:
			b.t.Fatalf("vpnd has ended:\n%s", b.vpnd.log)
		case <-time.After(2 * time.Millisecond):
		}
		if time.Since(begin) > 2*time.Minute {
			b.t.Fatalf("vpnd is not ready:\n%s", b.vpnd.log)
		}
	}
	took := time.Since(begin)
	if b.conn != nil {
		b.conn.Close()
	}
	b.conn = b.grpc()
	// The connection of a client that was there already would be made by now.
	if _, err := vpnv1.NewGatewayServiceClient(b.conn).GetStatus(b.t.Context(), &vpnv1.GetStatusRequest{}); err != nil {
		b.t.Fatal(err)
	}
	return took
}

// restart kills vpnd as a crash would, and says how long the next one takes to serve.
func (b *bed) restart() time.Duration { b.t.Helper(); b.kill9(); return b.serve() }

// resident is vpnd's resident memory in bytes.
func (b *bed) resident() uint64 {
	b.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.vpnd.cmd.Process.Pid))
	if err != nil {
		b.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib uint64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	b.t.Fatal("no VmRSS")
	return 0
}

// fsync writes what a command takes in the log (some 512 bytes, in place), and says how
// long the disk took.
func (b *bed) fsync() time.Duration {
	b.t.Helper()
	begin := time.Now()
	_, err := b.disk.WriteAt(make([]byte, 512), 0)
	if err == nil {
		err = b.disk.Sync()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return time.Since(begin)
}

// status fails the benchmark if the state does not hold as many devices as it should, or
// an address twice.
func (b *bed) noAddressTwice(ctx context.Context, want int) {
	b.t.Helper()
	r, err := vpnv1.NewDeviceServiceClient(b.conn).ListDevices(ctx, &vpnv1.ListDevicesRequest{}, grpc.MaxCallRecvMsgSize(256<<20))
	if err != nil {
		b.t.Fatal(err)
	}
	if len(r.GetDevices()) != want {
		b.t.Errorf("%d devices, not %d", len(r.GetDevices()), want)
	}
	seen := map[string]string{}
	for _, d := range r.GetDevices() {
		for _, a := range d.GetAddresses() {
			if other := seen[a]; other != "" {
				b.t.Errorf("%s belongs to %s and %s", a, other, d.GetName())
			}
			seen[a] = d.GetName()
		}
	}
}

// stopHard ends vpnd without waiting for its good order.
func (b *bed) stopHard() { b.t.Helper(); b.vpnd.stop(b.t, syscall.SIGKILL) }
