// Package ranges calculates with addresses as numbers: ranges, sets of prefixes, and the
// fewest prefixes of a range.
package ranges

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// Addr is an address as a number. IPv4 keeps its 32 bits in lo.
type Addr struct{ hi, Lo uint64 }

// Compare orders addresses of one family.
func (a Addr) Compare(b Addr) int { return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(a.Lo, b.Lo)) }

// Next is the address after a; after the last comes the first.
func (a Addr) Next() Addr {
	a.Lo++
	if a.Lo == 0 {
		a.hi++
	}
	return a
}

// Previous is the address before a.
func (a Addr) Previous() Addr {
	if a.Lo == 0 {
		a.hi--
	}
	a.Lo--
	return a
}

// Range is a range of addresses, both ends included.
type Range struct{ First, Last Addr }

// Numbers is a range of small numbers, such as ports.
func Numbers(first, last uint64) Range { return Range{Addr{0, first}, Addr{0, last}} }

// Number is an address as a number.
func Number(a netip.Addr) Addr {
	if a.Is4() {
		b := a.As4()
		return Addr{0, uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return Addr{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// Netip is the number as an address again.
func (a Addr) Netip(is4 bool) netip.Addr {
	if is4 {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(a.Lo))))
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.Lo)
	return netip.AddrFrom16(b)
}

// HostMask has the lowest n bits set.
func HostMask(n int) Addr {
	switch {
	case n >= 128:
		return Addr{^uint64(0), ^uint64(0)}
	case n > 64:
		return Addr{1<<(n-64) - 1, ^uint64(0)}
	case n == 64:
		return Addr{0, ^uint64(0)}
	default:
		return Addr{0, 1<<n - 1}
	}
}

// Of is the range of a prefix.
func Of(p netip.Prefix) Range {
	a := Number(p.Addr())
	m := HostMask(p.Addr().BitLen() - p.Bits())
	return Range{a, Addr{a.hi | m.hi, a.Lo | m.Lo}}
}

// AppendPrefixes appends the fewest prefixes that make up a range.
func AppendPrefixes(dst []netip.Prefix, r Range, is4 bool) []netip.Prefix {
	width := 128
	if is4 {
		width = 32
	}
	for {
		// The largest block that starts at first and does not pass last.
		n := bits.TrailingZeros64(r.First.Lo)
		if n == 64 {
			n += bits.TrailingZeros64(r.First.hi)
		}
		n = min(n, width)
		var end Addr
		for ; ; n-- {
			m := HostMask(n)
			end = Addr{r.First.hi | m.hi, r.First.Lo | m.Lo}
			if end.Compare(r.Last) <= 0 {
				break
			}
		}
		dst = append(dst, netip.PrefixFrom(r.First.Netip(is4), width-n))
		if end == r.Last {
			return dst
		}
		r.First = end.Next()
	}
}

// Set is a set of addresses of both families.
type Set struct{ V4, V6 []Range } // sorted, disjoint, not adjacent

func (s *Set) family(is4 bool) *[]Range {
	if is4 {
		return &s.V4
	}
	return &s.V6
}

// AddSet puts the addresses of o into s.
func (s *Set) AddSet(o Set) {
	s.V4 = Merge(append(slices.Clone(s.V4), o.V4...))
	s.V6 = Merge(append(slices.Clone(s.V6), o.V6...))
}

// RemoveSet takes the addresses of o out of s.
func (s *Set) RemoveSet(o Set) {
	s.V4 = Subtract(s.V4, o.V4)
	s.V6 = Subtract(s.V6, o.V6)
}

// Prefixes are the fewest that make up s.
func (s *Set) Prefixes() (list []netip.Prefix) {
	s.EachPrefix(func(p netip.Prefix) bool {
		list = append(list, p)
		return true
	})
	return list
}

// EachPrefix calls f with each of them until it returns false, and tells whether it went
// through them all.
func (s *Set) EachPrefix(f func(netip.Prefix) bool) bool {
	var buf []netip.Prefix
	for i, list := range [][]Range{s.V4, s.V6} {
		for _, r := range list {
			buf = AppendPrefixes(buf[:0], r, i == 0)
			for _, p := range buf {
				if !f(p) {
					return false
				}
			}
		}
	}
	return true
}

// SetOf is the set of the addresses in prefixes.
func SetOf(list ...netip.Prefix) Set {
	var s Set
	for _, p := range list {
		f := s.family(p.Addr().Is4())
		*f = append(*f, Of(p))
	}
	s.V4, s.V6 = Merge(s.V4), Merge(s.V6)
	return s
}

// Merge sorts ranges and makes them disjoint.
func Merge(list []Range) []Range {
	slices.SortFunc(list, func(a, b Range) int { return a.First.Compare(b.First) })
	var out []Range
	for _, r := range list {
		if n := len(out); n > 0 && (r.First.Compare(out[n-1].Last) <= 0 || r.First == out[n-1].Last.Next()) {
			if r.Last.Compare(out[n-1].Last) > 0 {
				out[n-1].Last = r.Last
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// Subtract returns what of a is not in b.
func Subtract(a, b []Range) []Range {
	var out []Range
	j := 0
	for _, r := range a {
		for j < len(b) && b[j].Last.Compare(r.First) < 0 {
			j++
		}
		gone := false
		for k := j; k < len(b) && b[k].First.Compare(r.Last) <= 0; k++ {
			if b[k].First.Compare(r.First) > 0 {
				out = append(out, Range{r.First, b[k].First.Previous()})
			}
			if b[k].Last.Compare(r.Last) >= 0 {
				gone = true
				break
			}
			r.First = b[k].Last.Next()
		}
		if !gone {
			out = append(out, r)
		}
	}
	return out
}

// ComparePrefixes orders prefixes by family, address, and the wider first.
func ComparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(cmp.Compare(a.Addr().BitLen(), b.Addr().BitLen()),
		Number(a.Addr()).Compare(Number(b.Addr())), cmp.Compare(a.Bits(), b.Bits()))
}
