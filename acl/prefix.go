package acl

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// addr is an address as a number. IPv4 keeps its 32 bits in lo.
type addr struct{ hi, lo uint64 }

func (a addr) compare(b addr) int { return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(a.lo, b.lo)) }

func (a addr) next() addr {
	a.lo++
	if a.lo == 0 {
		a.hi++
	}
	return a
}

func (a addr) previous() addr {
	if a.lo == 0 {
		a.hi--
	}
	a.lo--
	return a
}

// addrRange is a range of addresses, both ends included.
type addrRange struct{ first, last addr }

func numberOf(a netip.Addr) addr {
	if a.Is4() {
		b := a.As4()
		return addr{0, uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return addr{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (a addr) netip(is4 bool) netip.Addr {
	if is4 {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(a.lo))))
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
	return netip.AddrFrom16(b)
}

// hostMask has the lowest n bits set.
func hostMask(n int) addr {
	switch {
	case n >= 128:
		return addr{^uint64(0), ^uint64(0)}
	case n > 64:
		return addr{1<<(n-64) - 1, ^uint64(0)}
	case n == 64:
		return addr{0, ^uint64(0)}
	default:
		return addr{0, 1<<n - 1}
	}
}

func rangeOf(p netip.Prefix) addrRange {
	a := numberOf(p.Addr())
	m := hostMask(p.Addr().BitLen() - p.Bits())
	return addrRange{a, addr{a.hi | m.hi, a.lo | m.lo}}
}

// appendPrefixes appends the fewest prefixes that make up a range.
func appendPrefixes(dst []netip.Prefix, r addrRange, is4 bool) []netip.Prefix {
	width := 128
	if is4 {
		width = 32
	}
	for {
		// The largest block that starts at first and does not pass last.
		n := bits.TrailingZeros64(r.first.lo)
		if n == 64 {
			n += bits.TrailingZeros64(r.first.hi)
		}
		n = min(n, width)
		var end addr
		for ; ; n-- {
			m := hostMask(n)
			end = addr{r.first.hi | m.hi, r.first.lo | m.lo}
			if end.compare(r.last) <= 0 {
				break
			}
		}
		dst = append(dst, netip.PrefixFrom(r.first.netip(is4), width-n))
		if end == r.last {
			return dst
		}
		r.first = end.next()
	}
}

// prefixSet is a set of addresses of both families.
type prefixSet struct{ v4, v6 []addrRange } // sorted, disjoint, not adjacent

func (s *prefixSet) family(is4 bool) *[]addrRange {
	if is4 {
		return &s.v4
	}
	return &s.v6
}

func (s *prefixSet) addSet(o prefixSet) {
	s.v4 = mergeRanges(append(slices.Clone(s.v4), o.v4...))
	s.v6 = mergeRanges(append(slices.Clone(s.v6), o.v6...))
}

func (s *prefixSet) removeSet(o prefixSet) {
	s.v4 = subtract(s.v4, o.v4)
	s.v6 = subtract(s.v6, o.v6)
}

func (s *prefixSet) prefixes() []netip.Prefix {
	var list []netip.Prefix
	for _, r := range s.v4 {
		list = appendPrefixes(list, r, true)
	}
	for _, r := range s.v6 {
		list = appendPrefixes(list, r, false)
	}
	return list
}

func setOfPrefixes(list ...netip.Prefix) prefixSet {
	var s prefixSet
	for _, p := range list {
		f := s.family(p.Addr().Is4())
		*f = append(*f, rangeOf(p))
	}
	s.v4, s.v6 = mergeRanges(s.v4), mergeRanges(s.v6)
	return s
}

func mergeRanges(list []addrRange) []addrRange {
	slices.SortFunc(list, func(a, b addrRange) int { return a.first.compare(b.first) })
	var out []addrRange
	for _, r := range list {
		if n := len(out); n > 0 && (r.first.compare(out[n-1].last) <= 0 || r.first == out[n-1].last.next()) {
			if r.last.compare(out[n-1].last) > 0 {
				out[n-1].last = r.last
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// subtract returns what of a is not in b.
func subtract(a, b []addrRange) []addrRange {
	var out []addrRange
	j := 0
	for _, r := range a {
		for j < len(b) && b[j].last.compare(r.first) < 0 {
			j++
		}
		gone := false
		for k := j; k < len(b) && b[k].first.compare(r.last) <= 0; k++ {
			if b[k].first.compare(r.first) > 0 {
				out = append(out, addrRange{r.first, b[k].first.previous()})
			}
			if b[k].last.compare(r.last) >= 0 {
				gone = true
				break
			}
			r.first = b[k].last.next()
		}
		if !gone {
			out = append(out, r)
		}
	}
	return out
}

// comparePrefixes orders prefixes by family, address, and the wider first.
func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(cmp.Compare(a.Addr().BitLen(), b.Addr().BitLen()),
		numberOf(a.Addr()).compare(numberOf(b.Addr())), cmp.Compare(a.Bits(), b.Bits()))
}
