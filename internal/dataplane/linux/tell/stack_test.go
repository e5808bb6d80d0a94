package tell

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/netstack"
)

var (
	other4 = netip.MustParseAddr("10.88.0.2")
	other6 = netip.MustParseAddr("fd88::2")
)

// newStack puts gVisor's TCP/IP behind a link of the gateway's of its own.
func newStack(t *testing.T) *netstack.Net {
	t.Helper()
	kernel, err := tun.CreateTUN("other0", 1400)
	if err != nil {
		t.Fatalf("making a TUN device: %v", err)
	}
	dev, stack, err := netstack.CreateNetTUN([]netip.Addr{other4, other6}, nil, 1400)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kernel.Close(); _ = dev.Close() })
	// A TUN device wants room before a packet for its own header.
	const room = 16
	pump := func(from, to tun.Device) {
		bufs, sizes := make([][]byte, from.BatchSize()), make([]int, from.BatchSize())
		for i := range bufs {
			bufs[i] = make([]byte, 65535)
		}
		for {
			n, err := from.Read(bufs, sizes, room)
			if err != nil {
				return
			}
			for i := range n {
				if _, err := to.Write([][]byte{bufs[i][:room+sizes[i]]}, room); err != nil && err != io.ErrShortWrite {
					return
				}
			}
		}
	}
	go pump(kernel, dev)
	go pump(dev, kernel)
	sh(t, `ip addr add 10.88.0.1/24 dev other0; ip addr add fd88::1/64 dev other0 nodad; ip link set other0 up`)
	return stack
}

// TestOtherStack cuts connections to and from a TCP/IP that is not Linux's.
func TestOtherStack(t *testing.T) {
	for _, masquerade := range []bool{false, true} {
		t.Run(fmt.Sprintf("masquerade=%v", masquerade), func(t *testing.T) {
			b := newBed(t, masquerade)
			stack := newStack(t)
			for _, a := range []struct{ other, alice, wiki netip.Addr }{{other4, alice4, wiki4}, {other6, alice6, wiki6}} {
				l, err := stack.ListenTCPAddrPort(netip.AddrPortFrom(a.other, 7000))
				if err != nil {
					t.Fatal(err)
				}
				ends := b.connect(l, 3, dialFrom("alice", a.other))
				wiki := b.listen("wiki", a.wiki)
				ends = append(ends, b.connect(wiki, 3, func() (net.Conn, error) {
					return stack.DialTCPAddrPort(netip.AddrPortFrom(a.wiki, 7000))
				})...)
				time.Sleep(50 * time.Millisecond) // gVisor completes a handshake after Accept's return
				b.wait(b.cut(b.flows(unix.IPPROTO_TCP)))
				b.nothingLeft()
				b.told(ends)
				_ = l.Close()
				_ = wiki.Close()
			}
		})
	}
}
