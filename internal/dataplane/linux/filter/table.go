package filter

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux/nft"
)

// baseLocked is what of a layout depends neither on the policy nor on devices.
func (f *Filter) baseLocked() layout {
	l := layout{
		iface: f.c.Interface, mark: f.c.Mark, appPort: f.c.AppPort, portalPort: f.c.PortalPort,
		relayTCP: f.c.RelayTCP, relayUDP: f.c.RelayUDP,
		guard4: f.c.GuardForward4, guard6: f.c.GuardForward6, labels: f.kernel.labels,
		tag: f.layout.tag, // while these tables stand
	}
	if i, err := net.InterfaceByName(f.c.Interface); err == nil {
		l.linkLayer = len(i.HardwareAddr) > 0
	}
	return l
}

// of is the layout for a gateway and a policy.
func (l layout) of(g dataplane.Gateway, p policyPart) layout {
	l.gateway, l.network, l.masquerade = slices.Clone(g.Addrs), slices.Clone(g.Network), g.Masquerade
	l.fresh, l.off, l.levels = p.fresh, p.off, p.levels
	return l
}

// sendLocked brings the table to where p leads. When it fails, the state stays what it was;
// if the kernel may have changed something all the same, the next plan begins from scratch.
func (f *Filter) sendLocked(ctx context.Context, p plan, now time.Time) error {
	var err error
	switch {
	case p.how == change:
		err = f.changeLocked(ctx, p)
	case p.how == replace:
		err = f.replaceLocked(ctx, p.next(&f.state), p.want, now)
	default:
		err = f.rebuildLocked(ctx, p.next(&f.state), p.want, now)
	}
	if err != nil {
		return err
	}
	if p.whole != nil {
		f.state = *p.whole
	} else {
		f.apply(p.patch)
	}
	f.wakeLocked(now)
	f.expectLocked(p, p.whole != nil || p.how != change, now)
	return nil
}

// rebuildLocked replaces the whole table in one transaction: one that is not what it
// should be, or that a former vpnd has left.
func (f *Filter) rebuildLocked(ctx context.Context, to *state, want layout, now time.Time) error {
	b := &nft.Batch{Table: tableName}
	err := f.takeOver(b)
	f.built, f.garbage = false, nil // until this has worked
	if err != nil {
		return err
	}
	b.AddTable(f.kernel.flags())
	f.quietLocked(ctx, want)
	return f.buildLocked(ctx, b, to, want, now)
}

// quietLocked closes the table that is there before it is replaced, and nobody is told: a
// packet that is on its way through its rules in that moment would find its sets empty and
// be refused, by a reset. A table without these chains refuses nobody.
func (f *Filter) quietLocked(ctx context.Context, want layout) {
	b := &nft.Batch{Table: tableName}
	if there, err := f.adopt(b); !there || err != nil {
		return
	}
	b.FlushChain("prerouting")
	b.FlushChain("output")
	for _, r := range want.closed() {
		b.AddRule(r)
	}
	if err := f.commit(ctx, b); err != nil {
		f.c.Log.Warn("packet filter: the table that is there could not be closed before it is replaced", "why", err)
	}
}

// replaceLocked builds sets and rules beside those that are in force and changes over in
// one transaction. The old ones are swept up when no packet can be on its way through
// them any more.
func (f *Filter) replaceLocked(ctx context.Context, to *state, want layout, now time.Time) error {
	if err := f.sweepLocked(ctx); err != nil {
		f.c.Log.Warn("packet filter", "why", err)
		return f.rebuildLocked(ctx, to, want, now)
	}
	old := &generation{f.layout, f.suffix, f.classes}
	b := &nft.Batch{Table: tableName}
	if f.suffix == "" {
		b.Suffix = ".b"
	}
	if err := f.buildLocked(ctx, b, to, want, now); err != nil {
		return err
	}
	f.garbage = old
	time.AfterFunc(grace, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if err := f.sweepLocked(context.Background()); err != nil && !f.closed {
			f.c.Log.Warn("packet filter", "why", err)
		}
	})
	return nil
}

// grace is how long a packet may take to get through the rules, with plenty to spare.
const grace = 50 * time.Millisecond

// generation names the sets and chains that one policy has made.
type generation struct {
	layout  layout
	suffix  string
	classes map[uint32]bool
}

// sweepLocked deletes the sets and chains that a former policy has left.
func (f *Filter) sweepLocked(ctx context.Context) error {
	g := f.garbage
	if g == nil || f.closed || !f.built {
		return nil
	}
	b := &nft.Batch{Table: tableName, Suffix: g.suffix}
	chains, _ := g.layout.build(g.suffix, g.classes)
	for _, c := range chains {
		if c.hook == nil {
			b.FlushChain(c.name)
		}
	}
	for _, s := range g.layout.sets() {
		b.DelSet(s.Name)
	}
	for _, c := range chains {
		if c.hook == nil {
			b.DelChain(c.name)
		}
	}
	f.garbage = nil
	if err := f.commit(ctx, b); err != nil {
		f.built = false
		return fmt.Errorf("sweeping up after a change of policy: %w", err)
	}
	return nil
}

// buildLocked adds to b all sets, chains, rules and elements and commits it, and then
// changes over: a second transaction lets the base chains lead to them.
//
// In one transaction the kernel would use new rules before their sets: since Linux 6.18.y
// it makes a set of intervals searchable only some time after it has changed to the rules
// of the same transaction (nft_set_rbtree.c, "commit"), and until then finds nothing in it.
func (f *Filter) buildLocked(ctx context.Context, b *nft.Batch, to *state, want layout, now time.Time) error {
	if err := to.part.check(); err != nil {
		return err
	}
	for i, s := range want.sets() {
		b.AddSet(s, uint32(i+1))
	}
	over := &nft.Batch{Table: tableName, Suffix: b.Suffix}
	base := make(map[string]bool)
	want.tag = newTag()
	chains, rules := want.build(b.Suffix, to.part.classes)
	for _, c := range chains {
		b.AddChain(c.name, c.hook)
		if c.hook != nil {
			base[c.name] = true
			over.FlushChain(c.name)
		}
	}
	if !f.built {
		for _, r := range want.closed() {
			b.AddRule(r)
		}
	}
	for _, r := range rules {
		if base[r.Chain] {
			over.AddRule(r)
		} else {
			b.AddRule(r)
		}
	}
	all := to.snapshot().all(want, now)
	begin := f.now()
	allowed := f.addLocked(b, want, all)
	commit := func() error { return f.commit(ctx, b) }
	if f.built && f.kernel.owner {
		commit = func() error { return f.watch.deaf(func() error { return f.commit(ctx, b) }) }
	}
	if err := commit(); err != nil {
		f.built = f.built && nft.Unchanged(err)
		return fmt.Errorf("building table %s: %w", tableName, err)
	}
	if err := f.commit(ctx, over); err != nil {
		f.built = false
		return fmt.Errorf("changing over to the rules of table %s: %w", tableName, err)
	}
	f.built, f.layout, f.classes, f.suffix = true, want, to.part.classes, b.Suffix
	if f.now().Sub(begin) > allowed {
		return f.shortenLocked(ctx, all)
	}
	return nil
}

// shortenLocked sends the ends of all elements again, in small transactions: the one
// large transaction took so long that they would last longer than they should.
func (f *Filter) shortenLocked(ctx context.Context, all contents) error {
	for _, s := range f.layout.sets() {
		if !s.Timeout {
			continue
		}
		var elems []nft.Element
		for k, v := range all[s.Name] {
			if !v.Until.IsZero() {
				elems = append(elems, nft.Element{Key: k, Value: v})
			}
		}
		for part := range slices.Chunk(elems, nft.Chunk) {
			b := &nft.Batch{Table: tableName, Suffix: f.suffix}
			keys := make([]string, len(part))
			for i, e := range part {
				keys[i] = e.Key
			}
			b.DelElements(s, keys, f.kernel.deleteVerb())
			b.AddElements(s, part, f.now, 2*len(part))
			if err := f.commit(ctx, b); err != nil {
				f.built = false
				return fmt.Errorf("correcting the ends of sessions: %w", err)
			}
		}
	}
	return nil
}

// addLocked adds elements to b, and returns within which time they must be in the kernel.
func (f *Filter) addLocked(b *nft.Batch, l layout, add contents) time.Duration {
	size := 0
	for _, elems := range add {
		size += len(elems)
	}
	for _, s := range l.sets() {
		elems := make([]nft.Element, 0, len(add[s.Name]))
		for k, v := range add[s.Name] {
			elems = append(elems, nft.Element{Key: k, Value: v})
		}
		if s.Interval {
			slices.SortFunc(elems, func(a, b nft.Element) int { return strings.Compare(a.Key, b.Key) })
		}
		b.AddElements(s, elems, f.now, size)
	}
	return nft.Margin/2 + time.Duration(size)*nft.PerOp
}

// changeLocked changes the elements that differ. A changed element is deleted and added
// anew within the transaction, which every kernel understands alike.
func (f *Filter) changeLocked(ctx context.Context, p plan) error {
	part := p.part(&f.state)
	if err := part.check(); err != nil {
		return err
	}
	b := &nft.Batch{Table: tableName, Suffix: f.suffix}
	for _, s := range f.layout.sets() {
		if len(p.del[s.Name]) > 0 {
			b.DelElements(s, slices.Sorted(maps.Keys(p.del[s.Name])), f.kernel.deleteVerb())
		}
	}
	// Classes are only ever added here: fewer come with another policy.
	x := &builder{layout: f.layout, suffix: f.suffix}
	for _, class := range slices.Sorted(maps.Keys(part.classes)) {
		if !f.classes[class] {
			x.classRules(class)
		}
	}
	for _, c := range x.chains {
		b.AddChain(c.name, nil)
	}
	for _, r := range x.rules {
		b.AddRule(r)
	}
	begin := f.now()
	allowed := f.addLocked(b, f.layout, p.add)
	if err := f.commit(ctx, b); err != nil {
		f.built = nft.Unchanged(err)
		return fmt.Errorf("changing table %s: %w", tableName, err)
	}
	f.classes = part.classes
	if f.now().Sub(begin) > allowed {
		return f.shortenLocked(ctx, p.add)
	}
	return nil
}
