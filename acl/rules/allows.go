package rules

import (
	"cmp"
	"slices"
	"time"
)

// Allows returns what is allowed at now, sorted by role, class and MFA. An entry that
// another one of the same role and class outlasts both in MFA and in Until is left out.
func (r *Ruleset) Allows(now time.Time) []Allow {
	c := r.c
	open, until := c.timesAt(now)
	// The roles of every rule, so that the cost is that of the answer.
	rolesOf := make([][]RoleID, len(c.rules))
	for id, s := range c.roles {
		s.Each(func(n int) bool {
			rolesOf[n] = append(rolesOf[n], RoleID(id))
			return true
		})
	}
	byRole := make([][]Allow, len(c.roles))
	for id := range c.classes {
		for _, x := range c.classes[id].conds {
			if !open[x.cond] {
				continue
			}
			x.set.Each(func(n int) bool {
				for _, role := range rolesOf[n] {
					list := byRole[role]
					a := Allow{role, ClassID(id), c.conds[x.cond].mfa, until[x.cond]}
					if n := len(list); n == 0 || list[n-1] != a {
						byRole[role] = append(list, a)
					}
				}
				return true
			})
		}
	}
	var out []Allow
	for _, list := range byRole {
		out = append(out, longest(list)...)
	}
	return out
}

// timesAt tells which conditions hold at now, and until when.
func (c *compiled) timesAt(now time.Time) (open []bool, until []time.Time) {
	open, until = make([]bool, len(c.conds)), make([]time.Time, len(c.conds))
	for i := range c.conds {
		open[i], until[i] = c.conds[i].time(now)
	}
	return open, until
}

// longest sorts the entries of one role, and leaves those out that others outlast.
func longest(list []Allow) []Allow {
	// Longest codes first, with "off" the longest, and of those the longest Until.
	slices.SortFunc(list, func(a, b Allow) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), -compareMFA(a.MFA, b.MFA), -compareUntil(a.Until, b.Until))
	})
	out := list[:0]
	for _, a := range list {
		// The last one kept has the longest Until so far of its class.
		if n := len(out); n > 0 && out[n-1].Class == a.Class && compareUntil(out[n-1].Until, a.Until) >= 0 {
			continue
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Allow) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.MFA, b.MFA))
	})
	return out
}

func compareMFA(a, b time.Duration) int {
	if a == 0 || b == 0 {
		return -cmp.Compare(a, b) // "off" asks for nothing
	}
	return cmp.Compare(a, b)
}

func compareUntil(a, b time.Time) int {
	switch {
	case a.Equal(b):
		return 0
	case a.IsZero():
		return 1
	case b.IsZero():
		return -1
	default:
		return a.Compare(b)
	}
}

// Next returns the first instant after now at which "hours" or "expires" change an
// answer of Allows; zero if none will.
func (r *Ruleset) Next(now time.Time) time.Time {
	var next time.Time
	for i := range r.c.conds {
		_, until := r.c.conds[i].time(now)
		next = sooner(next, until)
	}
	return next
}
