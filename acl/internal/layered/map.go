// Package layered has an immutable map that is cheap to change a little.
package layered

import "maps"

// Map is an immutable map: a small one that is copied lies over a large one that
// is shared.
type Map[V any] struct{ Base, over map[string]V }

// MaxOver is the most entries of the small map.
const MaxOver = 256

// Get looks a key up.
func (x Map[V]) Get(key []byte) (V, bool) {
	if v, ok := x.over[string(key)]; ok {
		return v, true
	}
	v, ok := x.Base[string(key)]
	return v, ok
}

// With is x with one entry put.
func (x Map[V]) With(key string, v V) Map[V] {
	y := Map[V]{Base: x.Base, over: make(map[string]V, len(x.over)+1)}
	if len(x.over) >= MaxOver {
		y.Base = make(map[string]V, len(x.Base)+len(x.over))
		maps.Copy(y.Base, x.Base)
		maps.Copy(y.Base, x.over)
	} else {
		maps.Copy(y.over, x.over)
	}
	y.over[key] = v
	return y
}
