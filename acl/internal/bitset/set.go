// Package bitset has sets of rule numbers, on which every look-up of the compiled policy
// goes.
package bitset

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// Set is an immutable set of rule numbers: a bit string without its zero ends.
type Set struct {
	skip  int // words before the first
	words []uint64
}

// New takes the words of a scratch, which it copies.
func New(words []uint64) Set {
	skip := 0
	for skip < len(words) && words[skip] == 0 {
		skip++
	}
	end := len(words)
	for end > skip && words[end-1] == 0 {
		end--
	}
	if skip == end {
		return Set{}
	}
	return Set{skip, append([]uint64(nil), words[skip:end]...)}
}

// Of is the set of sorted numbers.
func Of(sorted []uint32) Set {
	if len(sorted) == 0 {
		return Set{}
	}
	skip := int(sorted[0] >> 6)
	words := make([]uint64, int(sorted[len(sorted)-1]>>6)-skip+1)
	for _, n := range sorted {
		words[int(n>>6)-skip] |= 1 << (n & 63)
	}
	return Set{skip, words}
}

// Shares tells whether two sets that are not empty are the same one in memory.
func (s Set) Shares(o Set) bool { return &s.words[0] == &o.words[0] }

// First returns the least number that is in both sets.
func First(a, b Set) (int, bool) {
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

// Last is the greatest number of s; ok is false if it is empty.
func (s Set) Last() (n int, ok bool) {
	if len(s.words) == 0 {
		return 0, false
	}
	i := len(s.words) - 1
	return (s.skip+i)*64 + bits.Len64(s.words[i]) - 1, true
}

// Bytes is the size of the numbers of s.
func (s Set) Bytes() int { return 8 * len(s.words) }

// Meets tells whether a number is in both sets.
func (s Set) Meets(o Set) bool {
	_, ok := First(s, o)
	return ok
}

// Has tells whether a number is in s.
func (s Set) Has(n int) bool { return s.word(n>>6)&(1<<(n&63)) != 0 }

// Filter is the set of those numbers of s that keep says yes to.
func (s Set) Filter(keep func(int) bool) Set {
	words := make([]uint64, len(s.words))
	s.Each(func(n int) bool {
		if keep(n) {
			words[n>>6-s.skip] |= 1 << (n & 63)
		}
		return true
	})
	out := New(words)
	if len(out.words) > 0 {
		out.skip += s.skip
	}
	return out
}

// With is s and the numbers of a list.
func (s Set) With(list []uint32) Set {
	if len(list) == 0 {
		return s
	}
	x := NewScratch(max((s.skip+len(s.words))*64, int(slices.Max(list))+1))
	x.Or(s)
	x.AddAll(list)
	return New(x)
}

// AppendKey appends a text that equal sets share and others do not.
func (s Set) AppendKey(dst []byte) []byte {
	return AppendKey(binary.BigEndian.AppendUint32(dst, uint32(s.skip)), s.words)
}

// Within tells whether every number of s is in o.
func (s Set) Within(o Set) bool {
	for i, w := range s.words {
		if w&^o.word(s.skip+i) != 0 {
			return false
		}
	}
	return true
}

// Count is how many numbers are in s.
func (s Set) Count() (n int) {
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return n
}

// Common appends the numbers that are in both sets to dst.
func Common(dst []int, a, b Set) []int {
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

// Each calls f with every number of s, in order, until f returns false.
func (s Set) Each(f func(int) bool) {
	for i, w := range s.words {
		for w != 0 {
			if !f((s.skip+i)*64 + bits.TrailingZeros64(w)) {
				return
			}
			w &= w - 1
		}
	}
}

// AppendKey appends a text that equal sets share and others do not.
func AppendKey(dst []byte, words []uint64) []byte {
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

// Scratch is a mutable set of fixed width.
type Scratch []uint64

// NewScratch has room for numbers below n.
func NewScratch(n int) Scratch { return make(Scratch, (n+63)/64) }

func (s Scratch) Add(n int)      { s[n>>6] |= 1 << (n & 63) }
func (s Scratch) Remove(n int)   { s[n>>6] &^= 1 << (n & 63) }
func (s Scratch) Has(n int) bool { return s[n>>6]&(1<<(n&63)) != 0 }
func (s Scratch) Clear()         { clear(s) }

func (s Scratch) Or(o Set) {
	for i, w := range o.words {
		s[o.skip+i] |= w
	}
}

func (s Scratch) AddAll(list []uint32) {
	for _, n := range list {
		s.Add(int(n))
	}
}

// Compare orders sets by their numbers, so that what is built from them can be
// numbered the same whatever order it was met in.
func Compare(a, b Set) int {
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

func (s Set) word(i int) uint64 {
	if i < s.skip || i >= s.skip+len(s.words) {
		return 0
	}
	return s.words[i-s.skip]
}
