package filter

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// attributes are the netlink attributes of a message or of a nest, by type.
type attributes map[uint16][]byte

func readAttributes(b []byte) (attributes, error) {
	list, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return nil, err
	}
	a := make(attributes, len(list))
	for _, x := range list {
		a[x.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = x.Data
	}
	return a, nil
}

func (a attributes) u32(typ uint16) uint32 {
	if len(a[typ]) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a[typ])
}

func (a attributes) str(typ uint16) string { return string(bytes.TrimRight(a[typ], "\x00")) }

// register gives the place of a register: 1 to 4 are the old ones of 16 bytes.
func (a attributes) register(typ uint16) (uint32, error) {
	switch n := a.u32(typ); {
	case n >= unix.NFT_REG_1 && n <= unix.NFT_REG_4:
		return (n - unix.NFT_REG_1) * 16, nil
	case n >= unix.NFT_REG32_00 && n <= unix.NFT_REG32_15:
		return (n - unix.NFT_REG32_00) * 4, nil
	default:
		return 0, fmt.Errorf("register %d is not known", n)
	}
}
