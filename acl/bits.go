package acl

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// set is an immutable set of rule numbers: a bit string without its zero ends.
type set struct {
	skip  int // words before the first
	words []uint64
}

// newSet takes the words of a scratch, which it copies.
func newSet(words []uint64) set {
	skip := 0
	for skip < len(words) && words[skip] == 0 {
		skip++
	}
	end := len(words)
	for end > skip && words[end-1] == 0 {
		end--
	}
	if skip == end {
		return set{}
	}
	return set{skip, append([]uint64(nil), words[skip:end]...)}
}

// setOf is the set of sorted numbers.
func setOf(sorted []uint32) set {
	if len(sorted) == 0 {
		return set{}
	}
	skip := int(sorted[0] >> 6)
	words := make([]uint64, int(sorted[len(sorted)-1]>>6)-skip+1)
	for _, n := range sorted {
		words[int(n>>6)-skip] |= 1 << (n & 63)
	}
	return set{skip, words}
}

// shares tells whether two sets that are not empty are the same one in memory.
func (s set) shares(o set) bool { return &s.words[0] == &o.words[0] }

// first returns the least number that is in both sets.
func first(a, b set) (int, bool) {
	if a.skip > b.skip {
		a, b = b, a
	}
	gap := b.skip - a.skip
	if gap >= len(a.words) {
		return 0, false
	}
	x, y := a.words[gap:], b.words
	n := min(len(x), len(y))
	x, y = x[:n], y[:n]
	for i := range x {
		if w := x[i] & y[i]; w != 0 {
			return (b.skip+i)*64 + bits.TrailingZeros64(w), true
		}
	}
	return 0, false
}

// meets tells whether a number is in both sets.
func (s set) meets(o set) bool {
	_, ok := first(s, o)
	return ok
}

// has tells whether a number is in s.
func (s set) has(n int) bool { return s.word(n>>6)&(1<<(n&63)) != 0 }

// filter is the set of those numbers of s that keep says yes to.
func (s set) filter(keep func(int) bool) set {
	words := make([]uint64, len(s.words))
	s.each(func(n int) bool {
		if keep(n) {
			words[n>>6-s.skip] |= 1 << (n & 63)
		}
		return true
	})
	out := newSet(words)
	if len(out.words) > 0 {
		out.skip += s.skip
	}
	return out
}

// with is s and the numbers of a list.
func (s set) with(list []uint32) set {
	if len(list) == 0 {
		return s
	}
	x := newScratch(max((s.skip+len(s.words))*64, int(slices.Max(list))+1))
	x.or(s)
	x.addAll(list)
	return newSet(x)
}

// appendKey appends a text that equal sets share and others do not.
func (s set) appendKey(dst []byte) []byte {
	return appendKey(binary.BigEndian.AppendUint32(dst, uint32(s.skip)), s.words)
}

// within tells whether every number of s is in o.
func (s set) within(o set) bool {
	for i, w := range s.words {
		if w&^o.word(s.skip+i) != 0 {
			return false
		}
	}
	return true
}

// count is how many numbers are in s.
func (s set) count() (n int) {
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return n
}

// common appends the numbers that are in both sets to dst.
func common(dst []int, a, b set) []int {
	if a.skip > b.skip {
		a, b = b, a
	}
	gap := b.skip - a.skip
	for i := range b.words {
		if gap+i >= len(a.words) {
			break
		}
		for w := a.words[gap+i] & b.words[i]; w != 0; w &= w - 1 {
			dst = append(dst, (b.skip+i)*64+bits.TrailingZeros64(w))
		}
	}
	return dst
}

// each calls f with every number of s, in order, until f returns false.
func (s set) each(f func(int) bool) {
	for i, w := range s.words {
		for w != 0 {
			if !f((s.skip+i)*64 + bits.TrailingZeros64(w)) {
				return
			}
			w &= w - 1
		}
	}
}

// appendKey appends a text that equal sets share and others do not.
func appendKey(dst []byte, words []uint64) []byte {
	skip := 0
	for skip < len(words) && words[skip] == 0 {
		skip++
	}
	end := len(words)
	for end > skip && words[end-1] == 0 {
		end--
	}
	if skip == end {
		skip, end = 0, 0
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(skip))
	for _, w := range words[skip:end] {
		dst = binary.BigEndian.AppendUint64(dst, w)
	}
	return dst
}

// scratch is a mutable set of fixed width.
type scratch []uint64

func newScratch(n int) scratch { return make(scratch, (n+63)/64) }

func (s scratch) add(n int)      { s[n>>6] |= 1 << (n & 63) }
func (s scratch) remove(n int)   { s[n>>6] &^= 1 << (n & 63) }
func (s scratch) has(n int) bool { return s[n>>6]&(1<<(n&63)) != 0 }
func (s scratch) clear()         { clear(s) }

func (s scratch) or(o set) {
	for i, w := range o.words {
		s[o.skip+i] |= w
	}
}

func (s scratch) addAll(list []uint32) {
	for _, n := range list {
		s.add(int(n))
	}
}

// compareSets orders sets by their numbers, so that what is built from them can be
// numbered the same whatever order it was met in.
func compareSets(a, b set) int {
	n := max(a.skip+len(a.words), b.skip+len(b.words))
	for i := range n {
		x, y := a.word(i), b.word(i)
		if x != y {
			// The set that has the lowest number of the difference comes first.
			if low := (x ^ y) & -(x ^ y); x&low != 0 {
				return -1
			}
			return 1
		}
	}
	return 0
}

func (s set) word(i int) uint64 {
	if i < s.skip || i >= s.skip+len(s.words) {
		return 0
	}
	return s.words[i-s.skip]
}
