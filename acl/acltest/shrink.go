package acltest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"vpnd/acl/rules"
)

// Shrink returns the smallest world it can find that still fails. It takes away, one by
// one, grants, devices, members of groups, and of each grant its sources, destinations,
// ports and conditions. No step makes a policy that does not compile.
func Shrink(w *World, fails func(*World) bool) *World {
	s := &shrinker{w: w, fails: fails}
	for s.again = true; s.again; {
		s.again = false
		for i := 0; i < len(s.w.Grants); i++ {
			x := *s.w
			x.Grants = without(x.Grants, i)
			if s.try(x) {
				i--
			}
		}
		for i := 0; i < len(s.w.Subjects); i++ {
			x := *s.w
			x.Subjects = without(x.Subjects, i)
			if s.try(x) {
				i--
			}
		}
		for i := range s.w.Grants {
			s.grant(i)
		}
		for _, name := range sortedKeys(s.w.Groups) {
			s.members(name)
		}
	}
	s.unused()
	return s.w
}

type shrinker struct {
	w     *World
	fails func(*World) bool
	again bool // something became smaller
}

// try takes x if it fails, too.
func (s *shrinker) try(x World) bool {
	if !s.fails(&x) {
		return false
	}
	s.w, s.again = &x, true
	return true
}

// replace tries another grant in place of the i-th.
func (s *shrinker) replace(i int, g Grant) bool {
	x := *s.w
	x.Grants = slices.Clone(x.Grants)
	x.Grants[i] = g
	return s.try(x)
}

func (s *shrinker) grant(i int) {
	for j := 0; j < len(s.w.Grants[i].Src) && len(s.w.Grants[i].Src) > 1; j++ {
		g := s.w.Grants[i]
		g.Src = without(g.Src, j)
		if s.replace(i, g) {
			j--
		}
	}
	for j := 0; j < len(s.w.Grants[i].Dst) && len(s.w.Grants[i].Dst) > 1; j++ {
		g := s.w.Grants[i]
		g.Dst = without(g.Dst, j)
		if g.ACL {
			g.IP = without(g.IP, j)
		}
		if s.replace(i, g) {
			j--
		}
	}
	for j := 0; !s.w.Grants[i].ACL && j < len(s.w.Grants[i].IP) && len(s.w.Grants[i].IP) > 1; j++ {
		g := s.w.Grants[i]
		g.IP = without(g.IP, j)
		if s.replace(i, g) {
			j--
		}
	}
	for j := range s.w.Grants[i].IP {
		s.ports(i, j)
	}
	for j := 0; j < len(s.w.Grants[i].Hours); j++ {
		g := s.w.Grants[i]
		g.Hours = without(g.Hours, j)
		if s.replace(i, g) {
			j--
		}
	}
	if g := s.w.Grants[i]; !g.Expires.IsZero() {
		g.Expires = time.Time{}
		s.replace(i, g)
	}
	if g := s.w.Grants[i]; g.MFA != "" {
		g.MFA = ""
		s.replace(i, g)
	}
}

// ports takes ranges out of a list of ports like "tcp:22,80-90".
func (s *shrinker) ports(i, j int) {
	proto, list, ok := strings.Cut(s.w.Grants[i].IP[j], ":")
	if !ok {
		proto, list = "", proto
	} else {
		proto += ":"
	}
	parts := strings.Split(list, ",")
	for k := 0; k < len(parts) && len(parts) > 1; k++ {
		g := s.w.Grants[i]
		g.IP = slices.Clone(g.IP)
		g.IP[j] = proto + strings.Join(without(parts, k), ",")
		if s.replace(i, g) {
			parts = without(parts, k)
			k--
		}
	}
}

// members takes people and groups out of a group.
func (s *shrinker) members(group string) {
	for j := 0; j < len(s.w.Groups[group]); j++ {
		x := *s.w
		x.Groups = maps.Clone(x.Groups)
		x.Groups[group] = without(x.Groups[group], j)
		if s.try(x) {
			j--
		}
	}
}

// unused takes the groups, hosts and sets away that nothing names.
func (s *shrinker) unused() {
	for s.again = true; s.again; {
		s.again = false
		for _, name := range sortedKeys(s.w.Groups) {
			x := *s.w
			x.Groups = maps.Clone(x.Groups)
			delete(x.Groups, name)
			s.tryUnnamed(x, name)
		}
		for _, name := range sortedKeys(s.w.Sets) {
			x := *s.w
			x.Sets = maps.Clone(x.Sets)
			delete(x.Sets, name)
			s.tryUnnamed(x, name)
		}
		for _, name := range sortedKeys(s.w.Hosts) {
			x := *s.w
			x.Hosts = maps.Clone(x.Hosts)
			delete(x.Hosts, name)
			s.tryUnnamed(x, name)
		}
	}
}

func (s *shrinker) tryUnnamed(x World, name string) {
	if !strings.Contains(string(x.Text()), name) {
		s.try(x)
	}
}

func without[T any](list []T, i int) []T { return slices.Delete(slices.Clone(list), i, i+1) }

// Report shrinks a world in which an enforcer and the oracle disagree about one packet,
// and tells all that somebody needs to see it again. fails judges the same packet in
// another world.
func Report(w *World, seed uint64, p rules.Packet, now time.Time, fails func(*World) bool) string {
	w = Shrink(w, fails)
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, at %s: from %s to %s, protocol %d, port %d\n", seed, now.Format(time.RFC3339Nano), p.Src, p.Dst, p.Proto, p.DstPort)
	for _, end := range []struct {
		name string
		s    rules.Session
	}{{"source", p.SrcSession}, {"destination", p.DstSession}} {
		if end.s != (rules.Session{}) {
			fmt.Fprintf(&b, "%s: signed in until %s, code of %s\n", end.name, end.s.Until.Format(time.RFC3339Nano), end.s.Code.Format(time.RFC3339Nano))
		}
	}
	for _, s := range w.Subjects {
		fmt.Fprintf(&b, "device %s of %s, tags %v: %v\n", s.Device, s.User, s.Tags, s.Addrs)
	}
	b.Write(w.Text())
	return b.String()
}
