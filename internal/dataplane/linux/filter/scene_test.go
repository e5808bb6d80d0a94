package filter

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// scene is a random world with one session, or none, for each of its devices: what a
// table can hold at one moment.
type scene struct {
	world    *acltest.World
	rules    *rules.Ruleset
	sessions map[string]dataplane.Session // by device
	now      time.Time
	gone     *rules.Subject // a device that was removed
	services []dataplane.Service
	serial   uint32
}

// The kernel counts in milliseconds and never lets a session last longer than it should,
// so worlds keep their boundaries this far from the present.
const coarse = 20 * time.Second

func newScene(tb testing.TB, rng *rand.Rand, grants int) *scene {
	tb.Helper()
	s := &scene{world: acltest.Random(rng, grants)}
	for i := range s.world.Grants {
		if s.world.Grants[i].MFA == "1s" {
			s.world.Grants[i].MFA = "1m"
		}
	}
	rules, err := s.world.Compile()
	if err != nil {
		tb.Fatal(err)
	}
	s.rules = rules
	s.services = s.published(tb)
	times := s.world.Times(rng)
	s.now = times[rng.IntN(len(times))]
	if s.now.Nanosecond() != 0 { // just before something changes
		s.now = s.now.Add(1 - coarse)
	}
	s.sessions = make(map[string]dataplane.Session)
	for _, d := range s.world.Subjects {
		if rng.IntN(8) > 0 {
			s.signIn(rng, d)
		}
	}
	return s
}

// signIn gives a device a session with codes around the boundaries of freshness.
func (s *scene) signIn(rng *rand.Rand, d rules.Subject) dataplane.Session {
	ages := []time.Duration{0, 0, time.Minute - coarse, time.Minute, 15*time.Minute - coarse, 15 * time.Minute, time.Hour - coarse, time.Hour, 6 * time.Hour}
	lasts := []time.Duration{coarse, time.Minute, time.Hour, 2 * time.Hour, 6 * time.Hour}
	newest := ages[rng.IntN(len(ages))]
	x := dataplane.Session{Device: d.Device, Addrs: d.Addrs, Until: s.now.Add(lasts[rng.IntN(len(lasts))])}
	for older := rng.IntN(3); older >= 0; older-- {
		s.serial++
		x.Codes = append(x.Codes, dataplane.Code{Serial: s.serial, At: s.now.Add(-newest - time.Duration(older)*5*time.Minute)})
	}
	s.sessions[d.Device] = x
	return x
}

// change signs some devices out and others in, and takes one away or puts it back.
func (s *scene) change(rng *rand.Rand) dataplane.Change {
	var c dataplane.Change
	end := func(d rules.Subject) {
		if x, ok := s.sessions[d.Device]; ok {
			c.EndSessions = append(c.EndSessions, x)
			delete(s.sessions, d.Device)
		}
	}
	for _, d := range s.world.Subjects {
		switch rng.IntN(4) {
		case 0:
			end(d)
		case 1:
			c.PutSessions = append(c.PutSessions, s.signIn(rng, d))
		}
	}
	if d := s.gone; d != nil {
		s.gone = nil
		s.world.Subjects = append(slices.Clone(s.world.Subjects), *d)
		s.rules = s.rules.With([]rules.Subject{*d}, nil)
		c.PutDevices = append(c.PutDevices, deviceOf(*d))
	} else {
		i := rng.IntN(len(s.world.Subjects))
		d := s.world.Subjects[i]
		s.gone = &d
		s.world.Subjects = slices.Delete(slices.Clone(s.world.Subjects), i, i+1)
		s.rules = s.rules.With(nil, d.Addrs)
		end(d)
		c.PutSessions = slices.DeleteFunc(c.PutSessions, func(x dataplane.Session) bool { return x.Device == d.Device })
		c.RemoveDevices = append(c.RemoveDevices, deviceOf(d))
	}
	c.Rules, c.Services = s.rules, s.moved(rng)
	return c
}

func flowOf(p rules.Packet) dataplane.Flow {
	return dataplane.Flow{Src: p.Src, Dst: p.Dst, Proto: p.Proto, DstPort: p.DstPort}
}

func deviceOf(s rules.Subject) dataplane.Device {
	return dataplane.Device{ID: s.Device, Name: s.Device, Addrs: s.Addrs}
}

// state is the scene as a plane is told it.
func (s *scene) state() dataplane.State {
	st := dataplane.State{Gateway: s.way().gateway, Rules: s.rules, Services: s.services}
	for _, d := range s.world.Subjects {
		st.Devices = append(st.Devices, deviceOf(d))
		if x, ok := s.sessions[d.Device]; ok {
			st.Sessions = append(st.Sessions, x)
		}
	}
	return st
}

// set makes the scene the state of a filter, whose clock then goes on from the scene's now.
func (s *scene) set(ctx context.Context, f *Filter) error {
	begin := time.Now()
	f.mu.Lock()
	f.now = func() time.Time { return s.now.Add(time.Since(begin)) }
	f.mu.Unlock()
	return f.Set(ctx, s.state())
}

// session is what the device at a is signed in with.
func (s *scene) session(a netip.Addr) rules.Session {
	for _, x := range s.sessions {
		for _, b := range x.Addrs {
			if a == b {
				return rules.Session{Until: x.Until, Code: x.Codes[len(x.Codes)-1].At}
			}
		}
	}
	return rules.Session{}
}

// packets makes n random packets of the tunnel's. Most are such that some grant covers
// them, else nearly all would be refused.
func (s *scene) packets(rng *rand.Rand, n int) []rules.Packet {
	addrs := s.world.Addrs()
	var list []rules.Packet
	for len(list) < n {
		granted := rng.IntN(3) > 0
		var p rules.Packet
		for range 12 {
			p = s.world.Packet(rng, addrs, s.now)
			if s.way().concerns(flowOf(p)) && (!granted || s.world.Granted(p)) {
				break
			}
		}
		list = append(list, p)
	}
	return list
}

// signed is the packet with the sessions that its ends have.
func (s *scene) signed(p rules.Packet) rules.Packet {
	p.SrcSession, p.DstSession = s.session(p.Src), s.session(p.Dst)
	return p
}

func (s *scene) way() way {
	return way{iface: "vt", mark: markBit, portal: portalPort, gateway: dataplane.Gateway{Addrs: s.world.Options.Gateway, Network: s.world.Options.Network}}
}

// boundary is a moment at which something ends, or just before; ok is false if there
// is none before the policy's hours turn, when the table changes by itself.
func (s *scene) boundary(rng *rand.Rand) (at time.Time, ok bool) {
	var ends []time.Time
	for _, x := range s.sessions {
		ends = append(ends, x.Until)
		for _, g := range s.world.Grants {
			if f, err := time.ParseDuration(g.MFA); err == nil {
				ends = append(ends, x.Codes[len(x.Codes)-1].At.Add(f))
			}
		}
	}
	next := s.rules.Next(s.now)
	if !next.IsZero() {
		ends = append(ends, next)
	}
	if len(ends) == 0 {
		return time.Time{}, false
	}
	at = ends[rng.IntN(len(ends))]
	if rng.IntN(2) == 0 {
		at = at.Add(-coarse / 4)
	}
	return at, at.After(s.now.Add(coarse/2)) && (next.IsZero() || !at.After(next))
}

// oracle is what a plane must do with a packet at a moment, and whether it is the tunnel's
// at all. It is the policy's verdict, but for what no policy decides.
func (s *scene) oracle(p rules.Packet, at time.Time) (allow, ours bool) {
	w := s.way()
	switch {
	case !w.concerns(flowOf(p)):
		return false, false
	case w.own(p.Dst) && !w.inTunnel(p.Src):
		return false, true // a tunnel address is only ever answered in the tunnel
	case w.own(p.Dst) && p.Proto == 6 && p.DstPort == webPort:
		return true, true // the portal is everybody's
	case s.nowhere(p.Dst):
		return false, true
	}
	return s.rules.Verdict(p, at).Allow, true
}
