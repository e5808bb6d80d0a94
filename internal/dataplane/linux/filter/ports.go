package filter

import (
	"encoding/binary"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane/linux/nft"
)

// A class is a chain, found by exact look-ups only. A zone's port ranges are cut into aligned
// blocks of 1, 16, 256 or 4,096 ports, or all 65,536, and each size has a hash map of its
// own: five look-ups at most, two for a usual policy, however many grants there are.
//
// The class that has most of a protocol's ports stands for all of them in the last map;
// the rest stand in the maps before, also those without a class (as class 0), so that
// the first map that knows a port is right.

// blockBits are the sizes of blocks, in bits, the smallest first.
var blockBits = []int{0, 4, 8, 12, 16}

func classSet(bits int) string {
	switch bits {
	case 0:
		return "ports"
	case 16:
		return "ports_all"
	}
	return "ports_" + strconv.Itoa(1<<bits)
}

// hasPorts says whether a policy may name ports of this protocol.
func hasPorts(proto uint8) bool {
	return proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_UDP || proto == unix.IPPROTO_SCTP
}

// block is a piece of one protocol's ports.
type block struct {
	bits  int
	port  uint16
	class rules.ClassID
}

// blocks cuts the sorted disjoint pieces of one protocol.
func blocks(pieces []rules.Ports) []block {
	if len(pieces) == 0 {
		return nil
	}
	if !hasPorts(pieces[0].Proto) {
		for _, p := range pieces {
			if p.First == 0 && p.Class != 0 {
				return []block{{bits: 16, class: p.Class}}
			}
		}
		return nil
	}
	full := fillGaps(pieces)
	// The background is the class with most ports.
	count := make(map[rules.ClassID]int)
	var background rules.ClassID
	for _, p := range full {
		count[p.Class] += int(p.Last) - int(p.First) + 1
		if n := count[p.Class]; n > count[background] || (n == count[background] && p.Class < background) {
			background = p.Class
		}
	}
	var out []block
	for _, p := range full {
		if p.Class != background {
			out = appendBlocks(out, p)
		}
	}
	if background != 0 {
		out = append(out, block{bits: 16, class: background})
	}
	return out
}

// fillGaps adds pieces of class 0, so that all 65,536 ports are named.
func fillGaps(pieces []rules.Ports) []rules.Ports {
	var out []rules.Ports
	next := 0
	for _, p := range pieces {
		if int(p.First) > next {
			out = append(out, rules.Ports{Proto: p.Proto, First: uint16(next), Last: p.First - 1})
		}
		out = append(out, p)
		next = int(p.Last) + 1
	}
	if next <= 0xffff {
		out = append(out, rules.Ports{Proto: pieces[0].Proto, First: uint16(next), Last: 0xffff})
	}
	return out
}

// appendBlocks cuts one range into aligned blocks, the largest that fit.
func appendBlocks(out []block, p rules.Ports) []block {
	for at := int(p.First); at <= int(p.Last); {
		bits := 0
		for _, b := range slices.Backward(blockBits[:4]) {
			if at&(1<<b-1) == 0 && at+1<<b-1 <= int(p.Last) {
				bits = b
				break
			}
		}
		out = append(out, block{bits: bits, port: uint16(at), class: p.Class})
		at += 1 << bits
	}
	return out
}

// classKey is the key of a block in its map.
func classKey(zone rules.ZoneID, proto uint8, b block) string {
	key := nft.Native32(uint32(zone))
	key = append(key, proto, 0, 0, 0)
	if b.bits < 16 {
		key = append(binary.BigEndian.AppendUint16(key, b.port), 0, 0)
	}
	return string(key)
}
