package doctor

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Watcher counts UDP packets to a port of this host from foreign addresses where they come
// in, before any firewall of this host.
type Watcher struct {
	fd   int
	port uint16
	done chan struct{}

	mu    sync.Mutex
	from  netip.Addr
	count int
}

// Watch needs CAP_NET_RAW.
func Watch(port uint16) (*Watcher, error) {
	all := uint16(unix.ETH_P_ALL)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(all<<8|all>>8))
	if err != nil {
		return nil, fmt.Errorf("watching what arrives: %w", err)
	}
	// Only UDP over IPv4 and IPv6 comes up from the kernel: the first byte is the version.
	prog, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6, SkipTrue: 3},
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipTrue: 3},
		bpf.RetConstant{Val: 0},
		bpf.LoadAbsolute{Off: 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipFalse: 1},
		bpf.RetConstant{Val: 128},
		bpf.RetConstant{Val: 0},
	})
	if err == nil {
		filter := make([]unix.SockFilter, len(prog))
		for i, r := range prog {
			filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
		}
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	}
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watching what arrives: %w", err)
	}
	w := &Watcher{fd: fd, port: port, done: make(chan struct{})}
	go w.run()
	return w, nil
}

func (w *Watcher) run() {
	buf := make([]byte, 128)
	for {
		select {
		case <-w.done:
			unix.Close(w.fd)
			return
		default:
		}
		n, from, err := unix.Recvfrom(w.fd, buf, 0)
		if err != nil {
			continue // the timeout
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if src, port := udp(buf[:n]); port == w.port && foreign(src) {
			w.mu.Lock()
			w.from, w.count = src, w.count+1
			w.mu.Unlock()
		}
	}
}

// udp reads the source and the destination's port of a UDP packet; 0: it is none.
func udp(b []byte) (src netip.Addr, port uint16) {
	head := 40
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		head = int(b[0]&15) * 4
		src = netip.AddrFrom4([4]byte(b[12:16]))
	case len(b) >= 40 && b[0]>>4 == 6:
		src = netip.AddrFrom16([16]byte(b[8:24]))
	default:
		return src, 0
	}
	if len(b) < head+8 {
		return src, 0
	}
	return src, binary.BigEndian.Uint16(b[head+2:])
}

// Seen is who came last, and how many packets came.
func (w *Watcher) Seen() (from string, packets int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count == 0 {
		return "", 0
	}
	return w.from.String(), w.count
}

// Close ends the watch.
func (w *Watcher) Close() { close(w.done) }
