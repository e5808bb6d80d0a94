package acl

import (
	"net/netip"
)

// placed is a prefix with what it leads to. Of several prefixes around an address the
// longest counts.
type placed[T comparable] struct {
	prefix netip.Prefix
	value  T
}

// flatten makes sorted prefixes disjoint and leaves those that lead to nothing out.
// It calls yield with each until that returns false.
func flatten[T comparable](list []placed[T], yield func(netip.Prefix, T) bool) {
	var none T
	type piece struct {
		addrRange
		is4   bool
		value T
	}
	var pieces []piece
	emit := func(first, last addr, is4 bool, v T) {
		if first.compare(last) > 0 || v == none {
			return
		}
		if n := len(pieces); n > 0 && pieces[n-1].is4 == is4 && pieces[n-1].value == v && pieces[n-1].last.next() == first && pieces[n-1].last.compare(first) < 0 {
			pieces[n-1].last = last
			return
		}
		pieces = append(pieces, piece{addrRange{first, last}, is4, v})
	}
	type frame struct {
		addrRange
		is4   bool
		value T
		next  addr // the first address that no piece covers yet
		done  bool // next has run past the last address there is
	}
	var stack []frame
	pop := func() {
		f := &stack[len(stack)-1]
		if !f.done {
			emit(f.next, f.last, f.is4, f.value)
		}
		last := f.last
		stack = stack[:len(stack)-1]
		if len(stack) > 0 {
			parent := &stack[len(stack)-1]
			parent.next = last.next()
			parent.done = last == parent.last
		}
	}
	for _, e := range list {
		r, is4 := rangeOf(e.prefix), e.prefix.Addr().Is4()
		for len(stack) > 0 && (stack[len(stack)-1].is4 != is4 || stack[len(stack)-1].last.compare(r.first) < 0) {
			pop()
		}
		if len(stack) > 0 {
			if f := &stack[len(stack)-1]; f.next.compare(r.first) < 0 {
				emit(f.next, r.first.previous(), is4, f.value)
			}
		}
		stack = append(stack, frame{r, is4, e.value, r.first, false})
	}
	for len(stack) > 0 {
		pop()
	}
	var buf []netip.Prefix
	for _, p := range pieces {
		buf = appendPrefixes(buf[:0], p.addrRange, p.is4)
		for _, x := range buf {
			if !yield(x, p.value) {
				return
			}
		}
	}
}
