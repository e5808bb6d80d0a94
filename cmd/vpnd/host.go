package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// reservePortal takes the portal's TCP port before anything on the host is changed.
func reservePortal(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, portError("--portal", "TCP", addr, err)
	}
	return l, nil
}

// checkWireGuard finds out whether the UDP port is free.
func checkWireGuard(addr netip.AddrPort) error {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return portError("--wireguard", "UDP", addr.String(), err)
	}
	return c.Close()
}

func portError(flag, proto, addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s address %s is in use by another program (another vpnd, perhaps): stop that, or choose another port with %s", proto, addr, flag)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s address %s needs a privilege (CAP_NET_BIND_SERVICE): choose a port above 1023 with %s", proto, addr, flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s address %s is not an address of this host: choose one with %s", proto, addr, flag)
	}
	return fmt.Errorf("listening on %s address %s (%s): %w", proto, addr, flag, err)
}

// ownAddress is the address by which this host reaches the world: a guess at what
// clients can dial. Connecting a UDP socket sends nothing; the addresses are the
// documentation prefixes of RFC 5737 and RFC 3849.
func ownAddress() netip.Addr {
	for _, far := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		c, err := net.Dial("udp", far)
		if err != nil {
			continue
		}
		addr := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		c.Close()
		if !addr.IsUnspecified() {
			return addr
		}
	}
	addrs, _ := net.InterfaceAddrs() // none: loopback will do
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
			return p.Addr()
		}
	}
	return netip.MustParseAddr("127.0.0.1")
}

// groupID looks a group up by name or number. ok is false when there is no such group.
func groupID(name string) (gid int, ok bool) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 {
		return n, true
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, false
	}
	gid, err = strconv.Atoi(g.Gid)
	return gid, err == nil
}

// remedy adds what to do to the failure to read a file that these flags name.
func remedy(err error, flags string) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: run vpnd as the user who owns it, or name another with %s", err, flags)
	}
	if strings.Contains(err.Error(), flags) {
		return err
	}
	return fmt.Errorf("%w: mend it, or name another with %s", err, flags)
}

// mayGive says whether this process may give a file of its own to a group (chown(2)).
func mayGive(gid int) bool {
	if os.Geteuid() == 0 || gid == os.Getegid() {
		return true
	}
	groups, err := os.Getgroups()
	return err == nil && slices.Contains(groups, gid)
}
