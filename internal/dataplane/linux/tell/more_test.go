package tell

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestToldHere: the acceptor is a socket of the gateway's own, bound to the tunnel as the
// portal's and the app's are, and its listener goes on.
func TestToldHere(t *testing.T) {
	b := newBed(t, true)
	for _, at := range []netip.Addr{gw4, gw6} {
		l := b.listen("", at)
		raw, err := l.(*net.TCPListener).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "vt") }); err != nil {
			t.Fatal(err)
		}
		ends := b.connect(l, 3, dialFrom("alice", at))
		b.wait(b.cut(b.flows(unix.IPPROTO_TCP)))
		b.nothingLeft()
		b.told(ends)
		b.connect(l, 1, dialFrom("alice", at))
		b.wait(b.cut(b.flows(unix.IPPROTO_TCP)))
	}
	if lack := b.teller.Lack(); lack != "" {
		t.Error(lack)
	}
}

// TestToldUDP: a connected socket learns from an ICMP error that nobody will answer it.
func TestToldUDP(t *testing.T) {
	for _, masquerade := range []bool{false, true} {
		t.Run(fmt.Sprintf("masquerade=%v", masquerade), func(t *testing.T) {
			b := newBed(t, masquerade)
			for _, to := range []netip.Addr{wiki4, wiki6} {
				at := netip.AddrPortFrom(to, 7000).String()
				server, err := in("wiki", func() (net.PacketConn, error) { return net.ListenPacket("udp", at) })
				if err != nil {
					t.Fatal(err)
				}
				client, err := in("alice", func() (net.Conn, error) { return net.Dial("udp", at) })
				if err != nil {
					t.Fatal(err)
				}
				if _, err := client.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				_ = server.SetReadDeadline(time.Now().Add(3 * time.Second))
				if _, _, err := server.ReadFrom(make([]byte, 9)); err != nil {
					t.Fatal(err)
				}
				b.wait(b.cut(b.flows(unix.IPPROTO_UDP)))
				b.nothingLeft()
				_ = client.SetReadDeadline(time.Now().Add(3 * time.Second))
				if _, err := client.Read(make([]byte, 9)); !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
					t.Errorf("the UDP client of %s: %v; want it told that this is prohibited", to, err)
				}
				_ = client.Close()
				_ = server.Close()
			}
		})
	}
}

// TestAskedAgain: what made the ends answer, or their answer, was lost.
func TestAskedAgain(t *testing.T) {
	b := newBed(t, true)
	ends := b.connect(b.listen("wiki", wiki4), 2, dialFrom("alice", wiki4))
	load(t, "", "table inet lossy { chain o { type filter hook output priority 0; meta mark 0x0c000000 drop; }\n}\n")
	done := b.cut(b.flows(unix.IPPROTO_TCP))
	time.Sleep(100 * time.Millisecond)
	sh(t, "nft delete table inet lossy")
	b.wait(done)
	b.nothingLeft()
	b.told(ends)
}

// TestGivenUp: an end is not there any more. The other one is told, and the flow goes.
func TestGivenUp(t *testing.T) {
	b := newBed(t, true)
	ends := b.connect(b.listen("wiki", wiki4), 2, dialFrom("alice", wiki4))
	b.teller.c.giveUp = time.Second
	sh(t, "ip -n alice link set eth0 down")
	done := b.cut(b.flows(unix.IPPROTO_TCP))
	b.told([]net.Conn{ends[1], ends[3]})
	b.wait(done)
	b.nothingLeft()
}

// TestAdopted: a former vpnd was told to stop in the middle.
func TestAdopted(t *testing.T) {
	b := newBed(t, true)
	ends := b.connect(b.listen("wiki", wiki4), 2, dialFrom("alice", wiki4))
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, f := range b.flows(unix.IPPROTO_TCP) {
		f = newTelling(f).marked()
		f.Mark |= Beginner
		if err := conn.Update(f); err != nil {
			t.Fatal(err)
		}
	}
	b.wait(b.cut(b.flows(unix.IPPROTO_TCP)))
	b.nothingLeft()
	b.told([]net.Conn{ends[1], ends[3]})
}

// TestWithoutRaw: flows are ended all the same, and the lack has a name.
func TestWithoutRaw(t *testing.T) {
	b := newBed(t, true)
	b.teller = New(Config{Interface: "vt", PacketMark: packetMark, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), noRaw: true})
	ends := b.connect(b.listen("wiki", wiki4), 1, dialFrom("alice", wiki4))
	b.wait(b.cut(b.flows(unix.IPPROTO_TCP)))
	b.nothingLeft()
	if lack := b.teller.Lack(); !strings.Contains(lack, "CAP_NET_RAW") {
		t.Errorf("what is lacking: %q", lack)
	}
	_ = ends[0].SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := ends[0].Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("the beginner: %v", err)
	}
}

// TestMany logs how long it takes until all ends of many flows know.
func TestMany(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 200
	}
	b := newBed(t, true)
	ends := b.connect(b.listen("wiki", wiki4), n, dialFrom("alice", wiki4))
	begin := time.Now()
	done := b.cut(b.flows(unix.IPPROTO_TCP))
	marked := time.Since(begin)
	b.wait(done)
	t.Logf("%d flows were closed after %v and told after %v", n, marked, time.Since(begin))
	b.nothingLeft()
	b.told(ends)
}
