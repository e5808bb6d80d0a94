package rules

import "fmt"

// Limits of what a gateway's tables hold, whichever plane it has. A policy that passes one is
// refused when it is checked or applied, before anything has changed.
const (
	// maxKinds is the most roles, and the most classes: nftables has 16 bits for each.
	maxKinds = 1<<16 - 1
	// maxElements is the most elements that a policy makes, without those of the devices:
	// some 30 bytes each in one transaction, and 100 in the kernel.
	maxElements = 2_000_000
)

// passes says which limit the policy passes, and by how much; "" if none.
func (c *compiled) passes() string {
	if len(c.roles)-1 > maxKinds || len(c.classes)-1 > maxKinds {
		return fmt.Sprintf("%d kinds of sources and %d kinds of destinations, where %d of each can be told apart", len(c.roles)-1, len(c.classes)-1, maxKinds)
	}
	if n := c.elements(); n > maxElements {
		return fmt.Sprintf("%d elements of a gateway's tables, where %d are possible", n, maxElements)
	}
	return ""
}

// elements counts what the policy puts into a gateway's tables, at the most: both ends of
// prefixes, blocks of ports, and which role may use which class.
func (c *compiled) elements() int {
	n := 2 * (len(c.sources) + len(c.destinations))
	for i := range c.zones {
		for _, p := range c.zones[i].ports {
			n += portBlocks(int(p.First), int(p.Last))
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
		}
	}
	return n
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
