package tell

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// An end that is a socket of this host is no hop away: a segment of ours would come by the
// wrong interface for it. sock_diag(7) ends it instead, which resets its peer as well.

// pair names a socket by its own address and its peer's.
type pair struct{ own, peer netip.AddrPort }

const (
	sockDiagByFamily = 20                            // linux/sock_diag.h
	sockDestroy      = 21                            //
	diagIDLen        = 48                            // struct inet_diag_sockid
	connected        = 0x1fe &^ (1 << 6) &^ (1 << 7) // TCP states with a peer, without TIME_WAIT and CLOSE
)

// localSockets are the ids of this host's connected TCP sockets. An id has the socket's
// cookie, so that nothing else can be ended by it, as a listener of the same port.
func localSockets(c *netlink.Conn) (map[pair][]byte, error) {
	out := make(map[pair][]byte)
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		msgs, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request | netlink.Dump},
			Data:   diagRequest(family, connected, make([]byte, diagIDLen)),
		})
		if err != nil {
			return nil, fmt.Errorf("listing TCP sockets: %w", err)
		}
		for _, m := range msgs {
			if len(m.Data) < 4+diagIDLen {
				continue
			}
			id := m.Data[4 : 4+diagIDLen]
			out[pair{diagAddr(m.Data[0], id, 0), diagAddr(m.Data[0], id, 1)}] = append([]byte{m.Data[0]}, id...)
		}
	}
	return out, nil
}

// diagAddr is one end of struct inet_diag_sockid: ports, then two times 16 bytes.
func diagAddr(family byte, id []byte, n int) netip.AddrPort {
	port := binary.BigEndian.Uint16(id[2*n:])
	b := id[4+16*n:]
	if family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), port)
}

// diagRequest is struct inet_diag_req_v2.
func diagRequest(family byte, states uint32, id []byte) []byte {
	b := append([]byte{family, unix.IPPROTO_TCP, 0, 0}, binary.NativeEndian.AppendUint32(nil, states)...)
	return append(b, id...)
}

// destroy ends a socket that localSockets has listed.
func destroy(c *netlink.Conn, id []byte) error {
	_, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: sockDestroy, Flags: netlink.Request | netlink.Acknowledge},
		Data:   diagRequest(id[0], 0, id[1:]),
	})
	return err
}

// own are this host's addresses, and its sockets when they are asked for.
type own struct {
	addrs map[netip.Addr]bool
	conn  *netlink.Conn
	ids   map[pair][]byte
}

func newOwn() *own {
	o := &own{addrs: make(map[netip.Addr]bool)}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return o // then they are asked like any other
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			o.addrs[p.Addr().Unmap()] = true
		}
	}
	return o
}

func (o *own) has(a netip.Addr) bool { return o.addrs[a] }

// end ends a socket, if there is one.
func (o *own) end(p pair) error {
	if o.conn == nil {
		conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
		if err != nil {
			return fmt.Errorf("open sock_diag: %w", err)
		}
		if o.ids, err = localSockets(conn); err != nil {
			_ = conn.Close()
			return err
		}
		o.conn = conn
	}
	id, ok := o.ids[p]
	if !ok {
		return nil
	}
	return destroy(o.conn, id)
}

func (o *own) close() {
	if o.conn != nil {
		_ = o.conn.Close()
	}
}
