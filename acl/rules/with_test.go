package rules_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// TestWithConcurrent derives from one Ruleset in many goroutines, each meeting roles and
// zones that are new, while others ask it for verdicts.
func TestWithConcurrent(t *testing.T) {
	var grants string
	for i := range 50 {
		grants += fmt.Sprintf(`{"src": ["user%d"], "dst": ["user%d", "10.1.%d.0/24", "autogroup:self"], "ip": ["tcp:%d"]},`, i, 49-i, i, i+1)
	}
	p, err := language.Parse([]byte(`{"grants": [` + grants + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	base, err := rules.Compile(p, benchOptions, nil)
	if err != nil {
		t.Fatal(err)
	}
	live := rules.Session{Until: acltest.Now.Add(time.Hour), Code: acltest.Now}
	shapes := make([]uint64, 50)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			r := base
			addr := deviceAddr(i, true)
			for range 20 {
				r = base.With([]rules.Subject{{Device: "d", User: fmt.Sprintf("user%d", i), Addrs: []netip.Addr{addr}}}, nil)
				p := rules.Packet{Src: addr, SrcSession: live, Dst: netip.AddrFrom4([4]byte{10, 1, byte(i), 9}), Proto: 6, DstPort: uint16(i + 1)}
				if !r.Verdict(p, acltest.Now).Allow || base.Verdict(p, acltest.Now).Allow {
					t.Errorf("user%d: with her device %+v, without %+v", i, r.Verdict(p, acltest.Now), base.Verdict(p, acltest.Now))
				}
				r = r.With(nil, []netip.Addr{addr})
				if r.Verdict(p, acltest.Now).Allow {
					t.Errorf("user%d: a removed device passes", i)
				}
			}
			shapes[i] = r.Shape()
		})
	}
	wg.Wait()
	seen := map[uint64]bool{base.Shape(): true}
	for i, s := range shapes {
		if seen[s] {
			t.Errorf("user%d: another role, the same Shape", i)
		}
		seen[s] = true
	}
}

// TestVerdictDoesNotAllocate, for every kind of condition.
func TestVerdictDoesNotAllocate(t *testing.T) {
	p, err := language.Parse([]byte(`{"grants": [
		{"src": ["alice"], "dst": ["*"], "ip": ["*"], "mfa": "15m", "hours": "daily 00:00-23:00 Europe/Berlin", "expires": "2030-01-01T00:00:00Z"},
		{"src": ["alice"], "dst": ["*"], "ip": ["*"]},
		{"src": ["alice"], "dst": ["autogroup:self"], "ip": ["*"], "mfa": "off"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	r, err := rules.Compile(p, benchOptions, []rules.Subject{{Device: "d", User: "alice", Addrs: []netip.Addr{deviceAddr(1, true), deviceAddr(2, true)}}})
	if err != nil {
		t.Fatal(err)
	}
	live := rules.Session{Until: acltest.Now.Add(time.Hour), Code: acltest.Now}
	for _, dst := range []netip.Addr{deviceAddr(2, true), deviceAddr(3, true), netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd01::1")} {
		x := rules.Packet{Src: deviceAddr(1, true), Dst: dst, Proto: 6, DstPort: 80, SrcSession: live}
		if n := testing.AllocsPerRun(100, func() { r.Verdict(x, acltest.Now) }); n != 0 {
			t.Errorf("a verdict about %s allocates %v times", dst, n)
		}
	}
}
