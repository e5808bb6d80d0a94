package language

import "testing"

// A name that only looks like another is another: users' names are ASCII.
func TestOnlyASCIIIsFolded(t *testing.T) {
	for _, c := range []struct{ a, b string }{
		{"Kate", "kate"}, {"KATE@Example.ORG", "kate@example.org"},
	} {
		if Fold(c.a) != Fold(c.b) {
			t.Errorf("%q and %q are two", c.a, c.b)
		}
	}
	for _, c := range []struct{ name, a, b string }{
		{"the sign of the kelvin", "\u212aate", "kate"},
		{"long s", "\u017fam", "sam"},
		{"dotted I", "\u0130da", "ida"},
		{"full width", "\uff4bate", "kate"},
		{"composed and not", "ren\u00e9", "rene\u0301"},
	} {
		if Fold(c.a) == Fold(c.b) {
			t.Errorf("%s: %q and %q are one", c.name, c.a, c.b)
		}
		a, errA := parseUser(c.a)
		b, errB := parseUser(c.b)
		if errA == nil && errB == nil && a == b {
			t.Errorf("%s: %q and %q name one user", c.name, c.a, c.b)
		}
	}
}
