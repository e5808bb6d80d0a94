package reconcile

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/peers"
)

// update tells the plane what differs between two views.
func (r *Reconciler) update(ctx context.Context, has, view *peers.View, settings peers.Settings, touched peers.Touched) (*rules.Ruleset, error) {
	var c dataplane.Change
	var put []rules.Subject
	now := r.Now()
	before := r.Rules()
	ruleset := before
	for _, id := range touched.Devices {
		was, err := r.deviceByID(has, id)
		if err != nil {
			return nil, err
		}
		is, err := r.deviceByID(view, id)
		if err != nil {
			return nil, err
		}
		replaced := was != nil && is != nil && (was.PublicKey != is.PublicKey || !slices.Equal(was.Addrs, is.Addrs))
		if was != nil && (is == nil || replaced) {
			c.RemoveDevices = append(c.RemoveDevices, *was)
			ruleset = ruleset.With(nil, was.Addrs)
		}
		if is != nil {
			if was == nil || replaced || was.Name != is.Name || was.PresharedKey != is.PresharedKey {
				c.PutDevices = append(c.PutDevices, *is)
			}
			if s, ok := view.Subject(view.Device(id)); ok {
				put = append(put, s)
			}
		}
		if view.Device(id) == nil {
			delete(r.unsealed, id)
		}
		before, after := session(has, id, time.Time{}, 0), session(view, id, now, behind(view, now))
		if was == nil {
			before = nil
		}
		if is == nil {
			after = nil
		}
		if before != nil && (after == nil || replaced || before.Codes[0].Serial != after.Codes[0].Serial) {
			c.EndSessions = append(c.EndSessions, *before)
		}
		if after != nil {
			c.PutSessions = append(c.PutSessions, *after)
		}
	}
	if touched.Policy {
		next, moved, ok := ruleset.Regroup(view.Policy().Text)
		if ok {
			ruleset = next
			put = append(put, subjects(view, moved)...)
		} else {
			var err error
			if ruleset, err = r.compile(view, settings); err != nil {
				return nil, err
			}
			put = nil // they are among everybody
			r.targets.stale = true
		}
	}
	if len(put) > 0 {
		ruleset = ruleset.With(put, nil)
	}
	if err := r.putMoved(&c, view, before, ruleset, put); err != nil {
		return nil, err
	}
	c.Rules = ruleset
	live := r.tests.live(view, now)
	r.tests.change(&c, live)
	if r.targets.stale {
		c.Services = r.targets.services(ctx, ruleset)
	}
	if err := r.Plane.Update(ctx, c); err != nil {
		return ruleset, err
	}
	r.tests.has, r.targets.stale = live, false
	return ruleset, nil
}

// subjects are the devices of users as the policy sees them.
func subjects(view *peers.View, users []string) (list []rules.Subject) {
	for _, name := range users {
		u := view.UserByName(name)
		if u == nil {
			continue // in a group, and not there yet
		}
		for d := range view.DevicesOf(u.ID) {
			if s, ok := view.Subject(d); ok {
				list = append(list, s)
			}
		}
	}
	return list
}

// putMoved puts the devices for which the policy now says something else.
func (r *Reconciler) putMoved(c *dataplane.Change, view *peers.View, before, ruleset *rules.Ruleset, put []rules.Subject) error {
	known := make(map[string]bool)
	for _, d := range c.PutDevices {
		known[d.ID] = true
	}
	for _, s := range put {
		moved := slices.ContainsFunc(s.Addrs, func(a netip.Addr) bool {
			role, zone, _ := before.Device(a)
			newRole, newZone, _ := ruleset.Device(a)
			return role != newRole || zone != newZone
		})
		if !moved {
			continue
		}
		d := view.DeviceByAddr(s.Addrs[0])
		if d == nil || known[d.ID.String()] {
			continue
		}
		dev, err := r.device(view, d)
		if err != nil {
			return err
		}
		if dev != nil {
			c.PutDevices = append(c.PutDevices, *dev)
		}
	}
	return nil
}
