// Package reconcile carries committed changes to the data plane. It never proposes.
//
// It compares two views of the state, the one that the plane has and the newest, and
// tells the plane the difference. When the plane has failed it tells it the same once more,
// and when that fails again, or the difference is not known, it tells it everything.
package reconcile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/internal/resolve"
	"vpnd/peers"
)

// Config is what a Reconciler needs.
type Config struct {
	State *peers.State
	Plane dataplane.Plane
	// Gateway gives the tunnel's near end for these settings (its key is unsealed).
	Gateway func(peers.Settings) (dataplane.Gateway, error)
	// PresharedKey unseals a device's.
	PresharedKey func(*peers.Device) (dataplane.Key, error)
	Now          func() time.Time
	Log          *slog.Logger
	// Lookup asks for the addresses of a resource's target; nil: as this host's programs do.
	Lookup func(ctx context.Context, name string) (resolve.Answer, error)
}

// Reconciler keeps the plane like the state.
type Reconciler struct {
	Config
	said uint64 // version of the policy of which was said what is ignored; Run's alone

	mu       sync.Mutex
	applied  uint64
	rules    *rules.Ruleset
	err      error         // of the last attempt; nil once the plane is up to date
	advanced chan struct{} // closed and replaced when applied or err changes

	unsealed map[peers.ID]unsealed // Run's alone
	tests    tests                 // Run's alone

	beat atomic.Int64 // Unix nanoseconds, see Beat

	targets targets
}

// New returns a Reconciler; Run drives it.
func New(c Config) *Reconciler {
	r := &Reconciler{Config: c, advanced: make(chan struct{}), unsealed: make(map[peers.ID]unsealed)}
	r.beat.Store(time.Now().UnixNano())
	r.targets.open(c)
	return r
}

// The pause after a failed attempt doubles from retryMin to retryMax. Until an attempt
// succeeds the plane may allow what the state no longer does, so it starts small.
const (
	retryOnce = 2 * time.Millisecond // of a change, as that change
	retryMin  = 50 * time.Millisecond
	retryMax  = 5 * time.Second
)

// Run applies changes until ctx ends, and returns its error.
func (r *Reconciler) Run(ctx context.Context) error {
	var has *peers.View // what the plane has; nil: unknown
	retry, again := retryMin, false
	for {
		view := r.State.View()
		settings, ok := view.Settings()
		if !ok {
			select {
			case <-view.Changed():
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		rules, err := r.apply(ctx, has, view, settings)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.publish(view, rules, err)
		if err != nil && has != nil && !again {
			// What fails for a moment, as for want of a buffer, costs no more than that: to
			// tell everything takes seconds where there are many devices.
			again = true
			r.Log.Warn("the data plane does not follow; trying the same once more", "why", err)
			select {
			case <-time.After(retryOnce):
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		again = false
		if err != nil {
			r.Log.Warn("the data plane does not follow; trying again", "why", err, "in", retry)
			r.beat.Store(time.Now().UnixNano())
			has = nil
			select {
			case <-time.After(retry):
			case <-ctx.Done():
				return ctx.Err()
			}
			retry = min(2*retry, retryMax)
			continue
		}
		retry = retryMin
		has = view
		if err := r.sleep(ctx, view, rules); err != nil {
			return err
		}
	}
}

// clockLook bounds how long a clock that was set forward, or that stood still while the
// host slept, can keep a grant open beyond its time: timers do not notice either.
const clockLook = 5 * time.Second

// sleep returns when the state has changed, or when the time of a grant or a self-test comes.
func (r *Reconciler) sleep(ctx context.Context, view *peers.View, ruleset *rules.Ruleset) error {
	next := ruleset.Next(r.Now())
	if end := r.tests.next(); !end.IsZero() && (next.IsZero() || end.Before(next)) {
		next = end
	}
	for {
		r.beat.Store(time.Now().UnixNano())
		wait := clockLook
		if !next.IsZero() {
			left := next.Sub(r.Now())
			if left <= 0 {
				return nil
			}
			wait = min(left, clockLook)
		}
		select {
		case <-view.Changed():
			return nil
		case <-r.targets.moved:
			r.targets.stale = true
			return nil
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Beat is when the reconciler was last seen at work, or awake with nothing to do: at least
// every 5 s, unless a change takes longer. A watchdog goes by it.
func (r *Reconciler) Beat() time.Time { return time.Unix(0, r.beat.Load()) }

func (r *Reconciler) apply(ctx context.Context, has, view *peers.View, settings peers.Settings) (*rules.Ruleset, error) {
	if has != nil {
		if touched, ok := view.Touched(has); ok && !touched.Settings {
			return r.update(ctx, has, view, settings, touched)
		}
	}
	return r.set(ctx, view, settings)
}

// set tells the plane everything.
func (r *Reconciler) set(ctx context.Context, view *peers.View, settings peers.Settings) (*rules.Ruleset, error) {
	gateway, err := r.Gateway(settings)
	if err != nil {
		return nil, fmt.Errorf("preparing the gateway's identity: %w", err)
	}
	ruleset, err := r.compile(view, settings)
	if err != nil {
		return nil, err
	}
	s := dataplane.State{Gateway: gateway, Rules: ruleset, Services: r.targets.services(ctx, ruleset)}
	now := r.Now()
	for d := range view.Devices() {
		dev, err := r.device(view, d)
		if err != nil {
			return nil, err
		}
		if dev == nil {
			continue
		}
		s.Devices = append(s.Devices, *dev)
		if ses := session(view, d.ID, now, behind(view, now)); ses != nil {
			s.Sessions = append(s.Sessions, *ses)
		}
	}
	live := r.tests.live(view, now)
	s.Devices = slices.AppendSeq(s.Devices, maps.Values(live))
	maps.DeleteFunc(r.unsealed, func(id peers.ID, _ unsealed) bool { return view.Device(id) == nil })
	if err := r.Plane.Set(ctx, s); err != nil {
		return ruleset, err
	}
	r.tests.has = live
	return ruleset, nil
}

// compile makes the Ruleset of a view. What of the stored policy this version refuses
// gives nothing, and is said once for each version of the policy.
func (r *Reconciler) compile(view *peers.View, settings peers.Settings) (*rules.Ruleset, error) {
	var subjects []rules.Subject
	for d := range view.Devices() {
		if s, ok := view.Subject(d); ok {
			subjects = append(subjects, s)
		}
	}
	options := view.PolicyOptions()
	options.Stored = true
	var text string
	stored := view.Policy()
	if stored != nil {
		text = stored.Text
	}
	policy := language.ParseStored([]byte(text))
	if stored != nil && r.said != stored.Version {
		for _, e := range policy.Ignored() {
			r.Log.Warn("a part of the stored policy gives nothing; mend it and apply it: vpnctl policy apply", "what", fmt.Sprintf("version %d, line %d", stored.Version, e.Line), "why", e.Message)
		}
		r.said = stored.Version
	}
	return rules.Compile(policy, options, subjects)
}

func (r *Reconciler) deviceByID(v *peers.View, id peers.ID) (*dataplane.Device, error) {
	d := v.Device(id)
	if d == nil {
		return nil, nil
	}
	return r.device(v, d)
}

// device gives d as the plane knows it; nil if it is not to be a peer.
func (r *Reconciler) device(v *peers.View, d *peers.Device) (*dataplane.Device, error) {
	s, ok := v.Subject(d)
	if !ok {
		return nil, nil
	}
	psk, err := r.presharedKey(d)
	if err != nil {
		// One damaged value must not keep what others lose from being closed.
		user, device, _ := strings.Cut(s.Device, "/")
		r.Log.Warn("a device stays out: its preshared key cannot be unsealed; give it new keys: vpnctl device rotate "+s.Device, "user", user, "device", device, "why", err)
		return nil, nil
	}
	return &dataplane.Device{
		ID:           d.ID.String(),
		Name:         s.Device,
		PublicKey:    dataplane.Key(d.PublicKey),
		PresharedKey: psk,
		Addrs:        d.Addrs,
	}, nil
}

// unsealed is a preshared key beside what it was unsealed from.
type unsealed struct {
	from peers.Sealed
	key  dataplane.Key
}

// presharedKey unseals a device's preshared key when it is another one than the last time.
func (r *Reconciler) presharedKey(d *peers.Device) (dataplane.Key, error) {
	if u, ok := r.unsealed[d.ID]; ok && bytes.Equal(u.from, d.PresharedKey) {
		return u.key, nil
	}
	key, err := r.PresharedKey(d)
	if err == nil {
		r.unsealed[d.ID] = unsealed{d.PresharedKey, key}
	}
	return key, err
}

// behind is how far the wall clock lies behind the state's time, which never runs
// backwards; 0 where it does not.
func behind(v *peers.View, now time.Time) time.Duration {
	return max(v.Time().Sub(now), 0)
}

// session gives a device's session if it lives at now. The state's instants are given by
// the wall clock that the plane goes by: with one that was set back a session would last
// longer than its length.
func session(v *peers.View, id peers.ID, now time.Time, behind time.Duration) *dataplane.Session {
	s, d := v.Session(id), v.Device(id)
	if s == nil || d == nil || !s.Until.After(now.Add(behind)) || len(s.Codes) == 0 {
		return nil
	}
	out := &dataplane.Session{Device: id.String(), Addrs: d.Addrs, Until: s.Until.Add(-behind)}
	for _, c := range s.Codes {
		out.Codes = append(out.Codes, dataplane.Code{Serial: c.Serial, At: c.At.Add(-behind)})
	}
	return out
}

func (r *Reconciler) publish(view *peers.View, ruleset *rules.Ruleset, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	if err == nil {
		r.applied = view.Index()
		r.rules = ruleset
	}
	close(r.advanced)
	r.advanced = make(chan struct{})
}

// Wait returns when the plane has applied everything up to the Raft index, or when ctx
// ends; then its error says why the plane has not.
func (r *Reconciler) Wait(ctx context.Context, index uint64) error {
	for {
		r.mu.Lock()
		applied, advanced, last := r.applied, r.advanced, r.err
		r.mu.Unlock()
		if applied >= index {
			return nil
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return fmt.Errorf("the data plane has applied %d of %d: %w", applied, index, errors.Join(last, ctx.Err()))
		}
	}
}

// Applied is the Raft index that the plane has applied.
func (r *Reconciler) Applied() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied
}

// Rules is the Ruleset in force; nil before the first.
func (r *Reconciler) Rules() *rules.Ruleset {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rules
}
