package rules

import (
	"net/netip"

	"vpnd/acl/internal/ranges"
)

// mapped is a prefix with what it leads to. Of several prefixes around an address the
// longest counts.
type mapped[T comparable] struct {
	prefix netip.Prefix
	value  T
}

// flatten makes sorted prefixes disjoint and leaves those that lead to nothing out.
// It calls yield with each until that returns false.
func flatten[T comparable](list []mapped[T], yield func(netip.Prefix, T) bool) {
	var none T
	type piece struct {
		ranges.Range
		is4   bool
		value T
	}
	var pieces []piece
	emit := func(first, last ranges.Addr, is4 bool, v T) {
		if first.Compare(last) > 0 || v == none {
			return
		}
		if n := len(pieces); n > 0 && pieces[n-1].is4 == is4 && pieces[n-1].value == v && pieces[n-1].Last.Next() == first && pieces[n-1].Last.Compare(first) < 0 {
			pieces[n-1].Last = last
			return
		}
		pieces = append(pieces, piece{ranges.Range{First: first, Last: last}, is4, v})
	}
	type frame struct {
		ranges.Range
		is4   bool
		value T
		next  ranges.Addr // the first address that no piece covers yet
		done  bool        // next has run past the last address there is
	}
	var stack []frame
	pop := func() {
		f := &stack[len(stack)-1]
		if !f.done {
			emit(f.next, f.Last, f.is4, f.value)
		}
		last := f.Last
		stack = stack[:len(stack)-1]
		if len(stack) > 0 {
			parent := &stack[len(stack)-1]
			parent.next = last.Next()
			parent.done = last == parent.Last
		}
	}
	for _, e := range list {
		r, is4 := ranges.Of(e.prefix), e.prefix.Addr().Is4()
		for len(stack) > 0 && (stack[len(stack)-1].is4 != is4 || stack[len(stack)-1].Last.Compare(r.First) < 0) {
			pop()
		}
		if len(stack) > 0 {
			if f := &stack[len(stack)-1]; f.next.Compare(r.First) < 0 {
				emit(f.next, r.First.Previous(), is4, f.value)
			}
		}
		stack = append(stack, frame{r, is4, e.value, r.First, false})
	}
	for len(stack) > 0 {
		pop()
	}
	var buf []netip.Prefix
	for _, p := range pieces {
		buf = ranges.AppendPrefixes(buf[:0], p.Range, p.is4)
		for _, x := range buf {
			if !yield(x, p.value) {
				return
			}
		}
	}
}
