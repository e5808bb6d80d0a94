package acl

import "maps"

// layered is an immutable map: a small one that is copied lies over a large one that
// is shared.
type layered[V any] struct{ base, over map[string]V }

const maxOver = 256

func (x layered[V]) get(key []byte) (V, bool) {
	if v, ok := x.over[string(key)]; ok {
		return v, true
	}
	v, ok := x.base[string(key)]
	return v, ok
}

func (x layered[V]) with(key string, v V) layered[V] {
	y := layered[V]{base: x.base, over: make(map[string]V, len(x.over)+1)}
	if len(x.over) >= maxOver {
		y.base = make(map[string]V, len(x.base)+len(x.over))
		maps.Copy(y.base, x.base)
		maps.Copy(y.base, x.over)
	} else {
		maps.Copy(y.over, x.over)
	}
	y.over[key] = v
	return y
}
