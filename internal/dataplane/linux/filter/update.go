package filter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vpnd/internal/dataplane"
)

// Every change goes the same way: it is planned, sent to the kernel, and then the flows
// that have lost their permission are killed. One that the kernel refuses changes nothing,
// here as there, so it can be repeated as it was.

// Set makes s the whole desired state. Flows that stay permitted notice nothing.
func (f *Filter) Set(ctx context.Context, s dataplane.State) error {
	if s.Rules == nil {
		return errors.New("the packet filter needs a policy")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrClosed
	}
	if err := checkSessions(s.Sessions); err != nil {
		return err
	}
	now := f.now()
	return f.carryOutLocked(ctx, f.planWhole(newState(s, f.leader(s.Gateway), now), f.inForceLocked(), now), now)
}

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
	// An instant at which the policy's hours turn may have come just now: setting the
	// clock for the next one takes the tick for this one away.
	return f.carryOutLocked(ctx, f.planChange(c, f.leader(f.gateway), f.turned(now), f.inForceLocked(), now), now)
}

// carryOutLocked sends a plan and kills what it cuts. In between nothing of the flows that
// are cut passes any more, and they are still there to be looked at.
func (f *Filter) carryOutLocked(ctx context.Context, p plan, now time.Time) error {
	if err := f.sendLocked(ctx, p, now); err != nil {
		return err
	}
	return f.cutLocked(p.cut, now)
}

func (f *Filter) leader(g dataplane.Gateway) leader {
	return leader{relay: f.c.RelayTCP != 0 && f.c.RelayUDP != 0, local: f.c.Local, network: g.Network}
}

// inForceLocked is the table that is there, and what a layout begins with.
func (f *Filter) inForceLocked() inForce {
	return inForce{built: f.built, layout: f.layout, base: f.baseLocked()}
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

// tick brings the allow sets up to date.
func (f *Filter) tick() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.policy == nil {
		return
	}
	now := f.now()
	if err := f.carryOutLocked(context.Background(), f.planChange(dataplane.Change{}, leader{}, true, f.inForceLocked(), now), now); err != nil {
		f.c.Log.Warn("packet filter: at a change of the policy's hours", "why", err)
		f.clock = time.AfterFunc(time.Second, f.tick)
	}
}

// checkSessions refuses serials that mean something else as marks.
func checkSessions(list []dataplane.Session) error {
	for _, s := range list {
		for _, c := range s.Codes {
			if c.Serial == 0 || c.Serial >= lastSerial {
				return fmt.Errorf("code serial %#x of device %s is outside of 1 to %#x", c.Serial, s.Device, uint32(lastSerial)-1)
			}
		}
	}
	return nil
}
