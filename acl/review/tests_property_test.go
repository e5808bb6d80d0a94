package review_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/review"
	"vpnd/acl/rules"
)

// asked is one assertion of a policy's tests.
type asked struct {
	src, dst string
	ports    []uint16 // all of what it asks about
	accept   bool
}

func (a asked) text() string {
	ports := make([]string, len(a.ports))
	for i, p := range a.ports {
		ports[i] = fmt.Sprint(p)
	}
	dst := a.dst
	if addr, length, _ := strings.Cut(dst, "/"); strings.Contains(addr, "::") {
		if length != "" {
			length = "/" + length
		}
		dst = "[" + addr + "]" + length
	}
	return fmt.Sprintf(`{"src": %q, %q: [%q]}`, a.src, map[bool]string{true: "accept", false: "deny"}[a.accept], dst+":"+strings.Join(ports, ","))
}

// TestTestsAreVerdicts holds what a policy's tests say against verdicts, packet by packet,
// with every session live and every code fresh.
func TestTestsAreVerdicts(t *testing.T) {
	said := map[string]int{}
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 12))
		w := acltest.Random(rng, 1+rng.IntN(8))
		for i := range w.Grants { // a test takes every grant for open
			w.Grants[i].Hours, w.Grants[i].Expires = nil, time.Time{}
		}
		addrs := w.Addrs()
		for range 12 {
			a := randomTest(rng, w)
			text := strings.TrimSuffix(strings.TrimSpace(string(w.Text())), "}") + "\"tests\": [" + a.text() + "],\n}\n"
			p, err := language.Parse([]byte(text))
			if err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, err, text)
			}
			r, err := rules.Compile(p, w.Options, w.Subjects)
			if err != nil {
				t.Fatal(err)
			}
			failed := review.RunTests(r, w.Subjects)
			all, none, pairs := true, true, 0
			for _, src := range addrs {
				if !w.Sends(a.src, src) {
					continue
				}
				for _, dst := range addrs {
					x := rules.Packet{Src: src, Dst: dst}
					if src.Is4() != dst.Is4() || !w.Receives(a.dst, x) || a.accept && a.dst == "*" && w.IsService(dst) {
						continue
					}
					if _, _, isDevice := r.Device(src); isDevice && src == dst {
						continue // it stands for another one like it, which need not be there
					}
					pairs++
					for _, port := range a.ports {
						x.DstPort = port
						allowed := passes(r, x, 6) || passes(r, x, 17)
						all, none = all && allowed, none && !allowed
					}
				}
			}
			message := failed.Error()
			// Devices that are to come have no address to try.
			toCome := slices.ContainsFunc([]string{"a member", "a tagged device", "a device with", "another device of"}, func(s string) bool { return strings.Contains(message, s) }) ||
				slices.ContainsFunc([]string{"alice", "bob", "carol", "dave", "nobody"}, func(u string) bool {
					return strings.Contains(message, ": "+u+" ") || strings.Contains(message, " reach "+u+" ") || strings.Contains(message, " reaches "+u+" ")
				})
			if ends := itself.FindStringSubmatch(message); ends != nil && ends[1] == ends[2] {
				toCome = true
			}
			holds := len(failed) == 0
			what := fmt.Sprintf("accept %v holds %v", a.accept, holds)
			said[what]++
			if wrong := map[bool]bool{
				true:  pairs > 0 && (holds && !all || !holds && all && !toCome),
				false: holds && !none || !holds && none && !toCome,
			}[a.accept]; wrong {
				t.Fatalf("seed %d: %s, but all %v, none %v of %d pairs pass; it says %q\n%s%v", seed, what, all, none, pairs, message, text, w.Subjects)
			}
		}
	}
	t.Log(said)
	for _, accept := range []bool{true, false} {
		for _, holds := range []bool{true, false} {
			if what := fmt.Sprintf("accept %v holds %v", accept, holds); said[what] < 50 {
				t.Errorf("only %d tests were like this: %s", said[what], what)
			}
		}
	}
}

var itself = regexp.MustCompile(`fails: (.*) (?:reaches|does not reach) (.*) (?:by the grant|at port)`)

func passes(r *rules.Ruleset, p rules.Packet, proto uint8) bool {
	p.Proto = proto
	live := rules.Session{Until: acltest.Now.Add(time.Hour), Code: acltest.Now}
	for _, end := range []struct {
		a netip.Addr
		s *rules.Session
	}{{p.Src, &p.SrcSession}, {p.Dst, &p.DstSession}} {
		if _, _, isDevice := r.Device(end.a); isDevice {
			*end.s = live
		}
	}
	return r.Verdict(p, acltest.Now).Allow
}

// randomTest asks about what a grant says, more often than not.
func randomTest(rng *rand.Rand, w *acltest.World) asked {
	pick := func(list []string) string { return list[rng.IntN(len(list))] }
	selectors := []string{"alice", "bob", "carol@", "dave", "nobody", "group:g0", "group:g1", "group:g3", "autogroup:member", "autogroup:tagged", "tag:x", "tag:unused",
		"*", "h0", "h1", "app", "ipset:s0", "ipset:s1", "10.1.0.0/16", "10.1.2.3", "10.77.0.0/24", "10.77.0.4/30", "fd77::/64", "fd77::4", "::/0"}
	a := asked{src: pick(selectors), dst: pick(append(selectors, "autogroup:self", "autogroup:self")), accept: rng.IntN(2) == 0}
	for range 1 + rng.IntN(2) {
		a.ports = append(a.ports, []uint16{1, 22, 80, 85, 90, 91, 100, 443, 65535}[rng.IntN(9)])
	}
	if g := w.Grants[rng.IntN(len(w.Grants))]; rng.IntN(3) > 0 {
		a.src, a.dst = pick(g.Src), pick(g.Dst)
		a.ports = []uint16{443}
	}
	return a
}
