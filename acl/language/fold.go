package language

import "strings"

// Fold gives the form in which users' names are compared. Only ASCII is folded, as users'
// names are of nothing else: to Unicode the sign of the kelvin is a capital k, so that a
// name which looks like hers would be somebody's grant.
func Fold(name string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, name)
}
