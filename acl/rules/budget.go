package rules

import (
	"math"

	"vpnd/acl/internal/bitset"
	"vpnd/acl/language"
)

// Limits of what a policy may cost, here and in a gateway's tables. A policy that passes one
// is refused when it is checked or applied, before anything has changed. One that is in
// force already is never held against them.
const (
	// MaxBytes is what the sets of a compiled policy may take: the bytes of every set that is
	// made, and those that are looked at to find out that a set is there already.
	MaxBytes = 128 << 20
	// MaxTestBytes is the same of the sets that a policy's tests look at.
	MaxTestBytes = 128 << 20
	// MaxPrefixes is the most disjoint prefixes of sources or destinations.
	MaxPrefixes = 500_000
	// maxKinds is the most roles, and the most classes: nftables has 16 bits for each.
	maxKinds = 1<<16 - 1
	// maxElements is the most elements that a policy makes, without those of the devices:
	// some 30 bytes each in one transaction, and 100 in the kernel.
	maxElements = 2_000_000
)

// What things take beside the words of their sets, in bytes: headers, map entries, and the
// room that growing lists leave.
const (
	perEntry  = 16  // of a list of numbers
	perRange  = 64  // of ports or of addresses
	perSet    = 160 // with its key
	perPrefix = 320 // with its nodes in a routing table
)

// Budget is spent before memory is taken or a set looked at. The zero Budget is spent.
type Budget struct {
	left  int
	spent bool
	at    language.TextRange // where it broke
}

// NewBudget has so many bytes.
func NewBudget(bytes int) *Budget { return &Budget{left: bytes} }

// Spend takes bytes for what stands at a part of the text; false: there are not so many.
func (b *Budget) Spend(bytes int, at language.TextRange) bool {
	if b.spent {
		return false
	}
	if bytes > b.left {
		b.spent, b.at = true, at
		return false
	}
	b.left -= bytes
	return true
}

// Spent tells whether something has asked for more than there was, and what.
func (b *Budget) Spent() (at language.TextRange, yes bool) { return b.at, b.spent }

// Left is what has not been spent.
func (b *Budget) Left() int { return b.left }

// limited tells whether the limits apply: not to what was accepted before.
func limited(p *language.Policy, o Options) bool { return !o.Stored && !p.Stored() }

// budgetOf is what compiling p under o may take.
func budgetOf(p *language.Policy, o Options) *Budget {
	if limited(p, o) {
		return NewBudget(MaxBytes)
	}
	return NewBudget(math.MaxInt)
}

// overspent is the fault of a policy that took more than its budget; nil if it did not.
func (pr *program) overspent() language.ErrorList {
	at, yes := pr.budget.Spent()
	if !yes {
		return nil
	}
	return refusal(pr.policy, at, "up to here the policy takes more than %d MB of memory: name wider prefixes and port ranges, or fewer, and give grants of the same destination the same conditions", MaxBytes>>20)
}

// spend takes what a set of rules costs: to look it up, and, if it is not known, to keep.
func (b *builder) spend(s bitset.Scratch, known bool, more int) bool {
	if b.shared {
		return true // With and Regroup carry on what is in force
	}
	bytes := 4*perEntry + len(b.key) + more
	if !known {
		bytes += perSet + 2*len(b.key)
	}
	if b.pr.budget.left >= bytes && !b.pr.budget.spent {
		b.pr.budget.left -= bytes
		return true
	}
	b.over = true
	return b.pr.budget.Spend(bytes, b.pr.lastOf(bitset.New(s)))
}

// sweepBytes is what splitting the ports of a zone's rules costs.
func (pr *program) sweepBytes(zone bitset.Set) int {
	if pr.allEvents(zone) {
		return perEntry * len(pr.events)
	}
	n := 0
	zone.Each(func(rule int) bool {
		n += len(pr.rules[rule].Spans)
		return true
	})
	return 4 * perEntry * n
}

// conditionBytes is what grouping the rules of a class by their conditions costs.
func (pr *program) conditionBytes(s bitset.Set) int {
	if _, same := pr.sameCondition(s); same {
		return 0
	}
	n := s.Count()
	return perEntry*n + perSet*min(n, len(pr.conds))
}

func refusal(p *language.Policy, at language.TextRange, format string, args ...any) language.ErrorList {
	f := p.Faults()
	f.Errorf(at, language.CodeOverBudget, format, args...)
	return append(p.Warnings(), f.Sorted()...)
}

// passes says which limit of a gateway's tables the policy passes; nil if none.
func (c *compiled) passes() language.ErrorList {
	const remedy = "name wider prefixes and port ranges, or fewer"
	if n := len(c.roles) - 1; n > maxKinds {
		return refusal(c.policy, c.lastOf(c.roles[n]), "the policy has %d kinds of sources, where %d can be told apart: %s", n, maxKinds, remedy)
	}
	if n := len(c.classes) - 1; n > maxKinds {
		return refusal(c.policy, c.lastOf(c.classes[n].set), "the policy has %d kinds of destinations, where %d can be told apart: %s", n, maxKinds, remedy)
	}
	if n := max(len(c.sources), len(c.destinations)); n > MaxPrefixes {
		last := c.sources
		at := language.TextRange{}
		if len(last) == n {
			at = c.lastOf(c.roles[last[n-1].Role])
		} else {
			at = c.lastOf(c.zones[c.destinations[n-1].Zone].set)
		}
		return refusal(c.policy, at, "the policy comes to more than %d disjoint prefixes: %s", MaxPrefixes, remedy)
	}
	return c.elements(remedy)
}

// elements counts what the policy puts into a gateway's tables, at the most: both ends of
// prefixes, blocks of ports, and which role may use which class.
func (c *compiled) elements(remedy string) language.ErrorList {
	n := 2 * (len(c.sources) + len(c.destinations))
	for i := range c.zones {
		for _, p := range c.zones[i].ports {
			n += portBlocks(int(p.First), int(p.Last))
		}
		if n > maxElements {
			return refusal(c.policy, c.lastOf(c.zones[i].set), "up to here the policy comes to more than %d elements of a gateway's tables: %s", maxElements, remedy)
		}
	}
	roles := make([]int, len(c.rules)) // that have each rule
	for _, s := range c.roles {
		s.Each(func(rule int) bool {
			roles[rule]++
			return true
		})
	}
	for i := range c.classes {
		for _, x := range c.classes[i].conds {
			may := 0
			x.set.Each(func(rule int) bool {
				may += roles[rule]
				return may < len(c.roles)
			})
			n += min(may, len(c.roles))
			if n > maxElements {
				return refusal(c.policy, c.lastOf(x.set), "up to here the policy comes to more than %d elements of a gateway's tables: %s", maxElements, remedy)
			}
		}
	}
	return nil
}

// portBlocks is how many aligned blocks of 1, 16, 256 or 4,096 ports make up a range.
func portBlocks(first, last int) (n int) {
	for at := first; at <= last; n++ {
		bits := 12
		for at&(1<<bits-1) != 0 || at+1<<bits-1 > last {
			bits -= 4
		}
		at += 1 << bits
	}
	return n
}
