package filter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// Update changes the desired state by c, in one transaction whose size depends on c
// alone, and then kills the flows that lost their permission.
func (f *Filter) Update(ctx context.Context, c dataplane.Change) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrClosed
	}
	if f.policy == nil {
		return errors.New("packet filter: Update before Set")
	}
	if err := checkSessions(c.PutSessions); err != nil {
		return err
	}
	now := f.now()
	touched := make(map[netip.Addr]bool)
	for _, d := range slices.Concat(c.RemoveDevices, c.PutDevices) {
		for _, a := range d.Addrs {
			touched[a] = true
		}
	}
	for _, s := range slices.Concat(c.EndSessions, c.PutSessions) {
		for _, a := range s.Addrs {
			touched[a] = true
		}
	}
	p := f.policy
	if c.Rules != nil {
		p = c.Rules
	}
	newPolicy := !sameCompile(p, f.policy)
	// An instant at which the policy's hours turn may have come just now: setting the
	// clock for the next one takes the tick for this one away.
	turned := f.turnedLocked(now)
	newShape := newPolicy || turned
	var more contents // what the policy's part has grown by
	if !newShape && p.Shape() != f.policy.Shape() {
		var derived bool
		if more, derived = f.part.grow(f.policy, p, now); !derived {
			newShape = true
		}
	}
	if newPolicy {
		for a, was := range f.devices {
			if placeOf(p, a) != was || !slices.Equal(p.Siblings(a), f.policy.Siblings(a)) {
				touched[a] = true
			}
		}
	}
	old := f.pickLocked(newShape, touched)
	var lost []netip.Addr // whose permissions are fewer
	if !newPolicy {
		for a := range touched {
			if p.Loses(f.policy, a) {
				lost = append(lost, a)
			}
		}
	}
	f.policy = p
	if newShape {
		f.part, f.judged = compile(p, now), now
	}
	for a := range touched {
		if _, ok := f.devices[a]; ok {
			f.devices[a] = placeOf(p, a)
		}
	}
	for _, d := range c.RemoveDevices {
		for _, a := range d.Addrs {
			delete(f.devices, a)
			delete(f.sessions, a)
		}
	}
	for _, d := range c.PutDevices {
		for _, a := range d.Addrs {
			f.devices[a] = placeOf(f.policy, a)
		}
	}
	for _, s := range c.EndSessions {
		for _, a := range s.Addrs {
			delete(f.sessions, a)
		}
	}
	for _, s := range c.PutSessions {
		f.putSessionLocked(s)
	}
	cur := f.pickLocked(newShape, touched)
	if more != nil {
		cur.part.contents = more
	}

	f.wakeLocked(now)
	want := f.layout
	if newShape || !f.built {
		want = f.layoutLocked()
	} else {
		want.fresh, want.off, want.levels = f.part.fresh, f.part.off, f.part.levels
		for a := range cur.devices {
			want.self = want.self || len(p.Siblings(a)) > 0
		}
	}
	var err error
	switch {
	case !f.built:
		err = f.rebuildLocked(ctx, want, now)
	case newPolicy || !want.equal(f.layout):
		err = f.replaceLocked(ctx, want, now)
	default:
		err = f.sendLocked(ctx, old.all(want, now), cur.all(want, now))
	}
	if err != nil {
		return err
	}
	if newPolicy || turned {
		return f.killRefusedLocked(now)
	}
	return f.killChangedLocked(old, cur, c, lost, now)
}

// pickLocked is the part of the desired state that a change may touch.
func (f *Filter) pickLocked(withPolicy bool, touched map[netip.Addr]bool) snapshot {
	s := snapshot{devices: make(map[netip.Addr]place), sessions: make(map[netip.Addr]session), policy: f.policy, others: make(map[netip.Addr]place)}
	if withPolicy {
		s.part = f.part
	}
	for a := range touched {
		if p, ok := f.devices[a]; ok {
			s.devices[a] = p
			s.others[a] = p
		}
		for _, b := range f.policy.Siblings(a) {
			if p, ok := f.devices[b]; ok {
				s.others[b] = p
			}
		}
		if x, ok := f.sessions[a]; ok {
			s.sessions[a] = x
		}
	}
	return s
}

// wakeLocked sets the clock to the next instant at which the policy's hours or ends
// change what is allowed. What ends is ended by the kernel; what begins is added then.
func (f *Filter) wakeLocked(now time.Time) {
	if f.clock != nil {
		f.clock.Stop()
		f.clock = nil
	}
	if next := f.policy.Next(now); !next.IsZero() {
		f.clock = time.AfterFunc(next.Sub(now), f.tick)
	}
}

// turnedLocked says whether the policy's hours have turned since f.part was made.
func (f *Filter) turnedLocked(now time.Time) bool {
	next := f.policy.Next(f.judged)
	return !next.IsZero() && !next.After(now)
}

// tick brings the allow sets up to date.
func (f *Filter) tick() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.policy == nil {
		return
	}
	now := f.now()
	old := f.snapshotLocked()
	f.part, f.judged = compile(f.policy, now), now
	err := f.applyLocked(context.Background(), old, now)
	if err == nil {
		err = f.killRefusedLocked(now)
	}
	if err != nil {
		f.c.Logf("packet filter: at a change of the policy's hours: %v", err)
		f.clock = time.AfterFunc(time.Second, f.tick)
	}
}

// serials of all flows that a session's chains may have begun.
func (s session) serials() []uint32 {
	var out []uint32
	for _, c := range s.codes {
		out = append(out, c.Serial)
	}
	return out
}

// killChangedLocked kills the flows of sessions and devices that are gone or renewed
// after a gap, and those that devices which have lost something may no longer have.
func (f *Filter) killChangedLocked(old, cur snapshot, c dataplane.Change, lost []netip.Addr, now time.Time) error {
	dead := make(map[uint32]bool)
	// Only a device that has a zone gets flows from others.
	reachable := func(a netip.Addr) bool { return old.devices[a].zone != 0 || cur.devices[a].zone != 0 }
	var broken []uint32    // serials of chains that a late code has broken, at some freshness
	var addrs []netip.Addr // whose flows from others and without a session are dead
	for a, s := range old.sessions {
		x := cur.sessions[a]
		for _, n := range s.serials() {
			dead[n] = true
		}
		if _, ok := cur.sessions[a]; !ok && reachable(a) {
			addrs = append(addrs, a)
		}
		if late(s, x, f.layout.fresh) {
			broken = append(broken, x.serials()...)
		}
	}
	for _, s := range c.EndSessions {
		for _, code := range s.Codes {
			dead[code.Serial] = true
		}
	}
	for a, s := range cur.sessions {
		for _, n := range s.serials() {
			delete(dead, n)
		}
		// A session that begins revives nothing that others began while there was none.
		if was, ok := old.sessions[a]; (!ok || !was.until.After(now)) && reachable(a) {
			addrs = append(addrs, a)
		}
	}
	for _, d := range c.RemoveDevices {
		for _, a := range d.Addrs {
			if f.part.off || reachable(a) {
				addrs = append(addrs, a)
			}
		}
	}
	if len(dead) > 0 {
		if err := f.killLocked(slices.Sorted(maps.Keys(dead)), func(flow) bool { return true }); err != nil {
			return fmt.Errorf("ending the flows of ended sessions: %w", err)
		}
	}
	if len(broken) > 0 {
		if err := f.killLocked(broken, func(fl flow) bool { return !f.aliveLocked(fl, now) }); err != nil {
			return fmt.Errorf("ending the flows of codes that are too old: %w", err)
		}
	}
	if len(addrs)+len(lost) == 0 {
		return nil
	}
	err := f.killLocked(nil, func(fl flow) bool {
		if slices.Contains(lost, fl.src) || slices.Contains(lost, fl.dst) {
			return !f.aliveLocked(fl, now)
		}
		if slices.Contains(addrs, fl.src) {
			return !f.aliveLocked(fl, now)
		}
		// To a device: dead unless an "off" grant allows it without any session.
		return slices.Contains(addrs, fl.dst) && !f.policy.Verdict(rules.Packet{Src: fl.src, Dst: fl.dst, Proto: fl.proto, DstPort: fl.port}, now).Allow
	})
	if err != nil {
		return fmt.Errorf("ending the flows of devices that came or went: %w", err)
	}
	return nil
}

// late says whether the newest code of s came too late to carry on a chain of old.
func late(old, s session, fresh []time.Duration) bool {
	if len(old.codes) == 0 || len(s.codes) == 0 || len(fresh) == 0 {
		return false
	}
	gap := s.codes[len(s.codes)-1].At.Sub(old.codes[len(old.codes)-1].At)
	return gap >= fresh[len(fresh)-1]
}
