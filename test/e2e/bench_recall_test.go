package e2e

import (
	"encoding/base64"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// recall kills vpnd as a crash would and leaves it a list of live clients that it had, all
// behind one address. It says how long after the start of the next process it has begun a
// handshake with the first and with the last of them.
func (b *bed) recall(live int) (first, last time.Duration) {
	b.t.Helper()
	b.kill9()
	var conn net.PacketConn
	if err := b.vm.host.in(func() (err error) { conn, err = net.ListenPacket("udp4", ":0"); return err }); err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	var where netip.AddrPort
	for _, a := range b.vm.host.addrs4("eth0") {
		where = netip.AddrPortFrom(a, conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	}
	b.writeEndpoints(live, where)

	begin := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		packet := make([]byte, 2048)
		for seen := map[string]bool{}; len(seen) < live; {
			n, _, err := conn.ReadFrom(packet)
			if err != nil {
				return
			}
			if n == 148 && packet[0] == 1 { // an initiation; its sender's index is its own
				if len(seen) == 0 {
					first = time.Since(begin)
				}
				seen[string(packet[4:8])] = true
			}
		}
		last = time.Since(begin)
	}()
	conn.SetReadDeadline(begin.Add(2 * time.Minute))
	b.serve()
	<-done
	if last == 0 {
		b.t.Fatalf("vpnd has not begun a handshake with each of %d clients:\n%s", live, b.vpnd.log)
	}
	return first, last
}

// writeEndpoints writes where the first live devices of the state are, as vpnd does it.
func (b *bed) writeEndpoints(live int, where netip.AddrPort) {
	b.t.Helper()
	dir := filepath.Join(b.data, "state")
	f := openFiller(b.t, dir, b.path("sealing.key"))
	view := f.store.State().View()
	settings, _ := view.Settings()
	b64 := func(k [32]byte) string { return base64.StdEncoding.EncodeToString(k[:]) }
	now := time.Now()
	var peers []map[string]any
	for d := range view.Devices() {
		if len(peers) == live {
			break
		}
		peers = append(peers, map[string]any{"key": b64(d.PublicKey), "endpoint": where, "local": gwPublic4, "handshake": now, "heard": now})
	}
	f.close()
	text, err := json.Marshal(map[string]any{"format": 1, "gateway": b64(settings.PublicKey), "written": now, "next": now.Add(4 * time.Second), "peers": peers})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "endpoints"), text, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// addrs4 are the IPv4 addresses of an interface.
func (h *host) addrs4(dev string) (out []netip.Addr) {
	h.t.Helper()
	var links []struct {
		Info []struct{ Local netip.Addr } `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(h.run("ip", "-j", "-4", "addr", "show", "dev", dev)), &links); err != nil {
		h.t.Fatal(err)
	}
	for _, l := range links {
		for _, i := range l.Info {
			out = append(out, i.Local)
		}
	}
	return out
}
