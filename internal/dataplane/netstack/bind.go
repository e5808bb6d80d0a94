package netstack

import (
	"net"
	"net/netip"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
)

// bind is WireGuard's UDP socket: wireguard-go's own, with its offloads, where all
// addresses are listened on, and a plain socket where one is.
type bind struct {
	conn.Bind // all addresses

	mu   sync.RWMutex
	addr netip.Addr
	sock *net.UDPConn
}

func newBind(a netip.Addr) *bind { return &bind{Bind: conn.NewStdNetBind(), addr: a} }

// setAddr chooses the address of the next Open and returns the former.
func (b *bind) setAddr(a netip.Addr) netip.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.addr
	b.addr = a
	return old
}

// Open implements conn.Bind.
func (b *bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.addr.IsValid() || b.addr.IsUnspecified() {
		return b.Bind.Open(port)
	}
	if b.sock != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	s, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.addr, port)))
	if err != nil {
		return nil, 0, err
	}
	const buffer = 7 << 20 // as wireguard-go's; the kernel gives what it allows
	s.SetReadBuffer(buffer)
	s.SetWriteBuffer(buffer)
	b.sock = s
	receive := func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n, from, err := s.ReadFromUDPAddrPort(bufs[0])
		if err != nil {
			return 0, err
		}
		sizes[0] = n
		eps[0] = &conn.StdNetEndpoint{AddrPort: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
		return 1, nil
	}
	return []conn.ReceiveFunc{receive}, uint16(s.LocalAddr().(*net.UDPAddr).Port), nil
}

// Close implements conn.Bind.
func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sock != nil {
		err := b.sock.Close()
		b.sock = nil
		return err
	}
	return b.Bind.Close()
}

// Send implements conn.Bind.
func (b *bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	b.mu.RLock()
	s := b.sock
	b.mu.RUnlock()
	if s == nil {
		return b.Bind.Send(bufs, ep)
	}
	to, ok := ep.(*conn.StdNetEndpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	for _, m := range bufs {
		if _, err := s.WriteToUDPAddrPort(m, to.AddrPort); err != nil {
			return err
		}
	}
	return nil
}
