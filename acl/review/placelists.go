package review

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"vpnd/acl/internal/ranges"
)

// placeLists keeps the lists of places that a Diff speaks of. A policy that replaces all
// of another has tens of thousands of differences with a few lists among them, of up to
// all devices: what is found out about a list is found out once. A list is not empty, is
// never changed, and is told by where it begins.
type placeLists struct {
	made    map[part][]Place
	names   map[*Place]string
	ids     map[*Place]int
	idOf    map[string]int // by its name
	unions  map[string][]Place
	renames map[*Place][]Place
}

// part is a list of prefixes.
type part struct {
	first *netip.Prefix
	n     int
}

func newPlaceLists() placeLists {
	return placeLists{made: map[part][]Place{}, names: map[*Place]string{}, ids: map[*Place]int{},
		idOf: map[string]int{}, unions: map[string][]Place{}, renames: map[*Place][]Place{}}
}

// of makes the list of prefixes.
func (l *placeLists) of(prefixes []netip.Prefix, places func([]netip.Prefix) []Place) []Place {
	key := part{&prefixes[0], len(prefixes)}
	list, ok := l.made[key]
	if !ok {
		list = places(prefixes)
		l.made[key] = list
	}
	return list
}

// name is all names of a list.
func (l *placeLists) name(list []Place) string {
	s, ok := l.names[&list[0]]
	if !ok {
		s = placeNames(list)
		l.names[&list[0]] = s
	}
	return s
}

// id is a number that lists of the same names have, whatever their prefixes.
func (l *placeLists) id(list []Place) int {
	n, ok := l.ids[&list[0]]
	if !ok {
		name := l.name(list)
		if n, ok = l.idOf[name]; !ok {
			n = len(l.idOf)
			l.idOf[name] = n
		}
		l.ids[&list[0]] = n
	}
	return n
}

// union is one list of all places of some lists.
func (l *placeLists) union(lists [][]Place) []Place {
	seen := map[*Place]bool{}
	lists = slices.DeleteFunc(lists, func(x []Place) bool {
		again := seen[&x[0]]
		seen[&x[0]] = true
		return again
	})
	if len(lists) == 1 {
		return lists[0]
	}
	var key strings.Builder
	for _, x := range lists {
		fmt.Fprintf(&key, "%p ", &x[0])
	}
	out, ok := l.unions[key.String()]
	if !ok {
		out = union(lists)
		l.unions[key.String()] = out
	}
	return out
}

// renamed is the list that change makes of one.
func (l *placeLists) renamed(list []Place, change func([]Place) []Place) []Place {
	out, ok := l.renames[&list[0]]
	if !ok {
		out = change(list)
		l.renames[&list[0]] = out
	}
	return out
}

// union joins places of the same name, in order of their names.
func union(lists [][]Place) []Place {
	of := map[string][]netip.Prefix{}
	for _, list := range lists {
		for _, p := range list {
			of[p.Name] = append(of[p.Name], p.Prefixes...)
		}
	}
	out := make([]Place, 0, len(of))
	for name, list := range of {
		slices.SortFunc(list, ranges.ComparePrefixes)
		out = append(out, Place{name, slices.Compact(list)})
	}
	slices.SortFunc(out, func(a, b Place) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// placeNames is a key of places.
func placeNames(places []Place) string {
	var b strings.Builder
	for _, p := range places {
		b.WriteString(p.Name)
		b.WriteByte(0)
	}
	return b.String()
}
