package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes are the netlink attributes of a message or of a nest, by type.
type Attributes map[uint16][]byte

func ReadAttributes(b []byte) (Attributes, error) {
	list, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return nil, err
	}
	a := make(Attributes, len(list))
	for _, x := range list {
		a[x.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = x.Data
	}
	return a, nil
}

func (a Attributes) U32(typ uint16) uint32 {
	if len(a[typ]) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a[typ])
}

func (a Attributes) Str(typ uint16) string { return string(bytes.TrimRight(a[typ], "\x00")) }

// Register gives the place of a register: 1 to 4 are the old ones of 16 bytes.
func (a Attributes) Register(typ uint16) (uint32, error) {
	switch n := a.U32(typ); {
	case n >= unix.NFT_REG_1 && n <= unix.NFT_REG_4:
		return (n - unix.NFT_REG_1) * 16, nil
	case n >= unix.NFT_REG32_00 && n <= unix.NFT_REG32_15:
		return (n - unix.NFT_REG32_00) * 4, nil
	default:
		return 0, fmt.Errorf("register %d is not known", n)
	}
}
