package rules

import (
	"net/netip"
	"testing"
	"time"

	"vpnd/acl/internal/bitset"
	"vpnd/acl/language"
)

// A set of rules is charged with what keeping it takes when it is met first, and with the
// look-up alone when it is met again.
func TestNewClassIsCharged(t *testing.T) {
	p, err := language.Parse([]byte(`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["tcp:1"]}, {"src": ["bob"], "dst": ["app"], "ip": ["tcp:2"]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	pr := newProgram(p, Options{Session: time.Hour, Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")}}, p.Faults())
	b := newBuilder(pr)
	s := bitset.NewScratch(len(pr.rules))
	s.AddAll([]uint32{0, 1})
	charge := func() int {
		left := pr.budget.Left()
		b.class(s)
		return left - pr.budget.Left()
	}
	first, again := charge(), charge()
	if want := 4*perEntry + len(b.key); again != want {
		t.Errorf("a class that is known costs %d, want %d", again, want)
	}
	if want := 4*perEntry + 3*len(b.key) + perSet; first != want {
		t.Errorf("a new class costs %d, want %d", first, want)
	}
}
