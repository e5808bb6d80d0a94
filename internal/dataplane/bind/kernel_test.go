package bind

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// kernel is a model of a socket's lower half: what it refuses, as udp(7) and ip(7) say.
type kernel struct {
	local   []netip.Addr // that the host has
	mtu     int          // of the path, in bytes of a datagram's payload
	noGSO   bool         // the interface cannot segment
	old     bool         // before Linux 6.2
	limit   int          // no datagram is larger
	err     error        // of everything, if there is one
	short   int          // how many messages one call takes at most; 0: all
	calls   int
	arrived []datagram
	pieces  int // datagrams that left in fragments
	joined  int // messages of several datagrams that were taken
}

type datagram struct {
	to   netip.AddrPort
	from netip.Addr // invalid: as routing chooses
	data string
}

func (k *kernel) ReadBatch([]message, int) (int, error) { return 0, net.ErrClosed }

func (k *kernel) WriteBatch(msgs []message, _ int) (int, error) {
	k.calls++
	if k.short > 0 {
		msgs = msgs[:min(len(msgs), k.short)]
	}
	for i := range msgs {
		if err := k.write(&msgs[i]); err != 0 {
			if i > 0 {
				return i, nil // as sendmmsg(2): the next call tells
			}
			return 0, os.NewSyscallError("sendmmsg", err)
		}
	}
	return len(msgs), nil
}

func (k *kernel) write(m *message) syscall.Errno {
	if k.err != nil {
		return k.err.(syscall.Errno)
	}
	to := m.Addr.(*net.UDPAddr).AddrPort()
	var from netip.Addr
	segment := 0
	for b := m.OOB; len(b) > 0; {
		h, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			return syscall.EINVAL
		}
		b = rest
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && to.Addr().Is4():
			from = netip.AddrFrom4([4]byte(data[4:8]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && to.Addr().Is6():
			from = netip.AddrFrom16([16]byte(data))
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_SEGMENT:
			segment = int(binary.NativeEndian.Uint16(data))
		default:
			return syscall.EAFNOSUPPORT
		}
	}
	if from.IsValid() && !slices.Contains(k.local, from) {
		return syscall.EINVAL
	}
	data := slices.Concat(m.Buffers...)
	if segment == 0 {
		if len(data) > k.limit {
			return syscall.EMSGSIZE
		}
		if len(data) > k.mtu {
			k.pieces++
		}
		k.arrived = append(k.arrived, datagram{to, from, string(data)})
		return 0
	}
	switch {
	case k.noGSO:
		return syscall.EIO
	case segment > k.mtu && k.old:
		return syscall.EINVAL
	case segment > k.mtu || len(data) > maxMessage:
		return syscall.EMSGSIZE
	case (len(data)+segment-1)/segment > maxSegments:
		return syscall.EINVAL
	}
	k.joined++
	for d := range slices.Chunk(data, segment) {
		k.arrived = append(k.arrived, datagram{to, from, string(d)})
	}
	return 0
}
