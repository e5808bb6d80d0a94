package local

import (
	"fmt"
	"net/netip"
)

// noSecond replaces a second octet of 0, so that no device comes from 127.0.0.0/16: there are
// 127.0.0.1, which services trust, and what distributions name (127.0.1.1, 127.0.0.53).
const noSecond = 254

// Standin is the address of 127/8 from which services on this host are called for a device: its
// tunnel address with 127 before the last three octets, and 254 in the place of a second octet
// of 0. So 10.77.3.4 is 127.77.3.4, and 10.0.3.4 is 127.254.3.4.
//
// Two devices of a network of up to 2^24 addresses never share one: devices have the lower half
// of the network, so those of a /8 have second octets of 0 to 127, and those of a smaller one
// have 0 and 254 both in no case. Of an IPv6 address, for networks that have no other, the last
// three bytes count, which are the device's place in the network.
func Standin(device netip.Addr) (netip.Addr, error) {
	device = device.Unmap()
	if !device.IsValid() {
		return device, fmt.Errorf("the device has no address that another could stand for")
	}
	b := device.AsSlice()
	last := b[len(b)-3:]
	out := [4]byte{127, last[0], last[1], last[2]}
	if out[1] == 0 {
		out[1] = noSecond
	}
	if out == [4]byte{127, 255, 255, 255} {
		return netip.Addr{}, fmt.Errorf("no address of 127/8 can stand for %v: it would be the broadcast address", device)
	}
	return netip.AddrFrom4(out), nil
}
