package filter

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux/nft"
)

// TestPlan: a plan holds what it takes, and leaves the state that it begins with alone.
func TestPlan(t *testing.T) {
	now := time.Now()
	made := newLarge(t, 2000, 50, 50)
	twin := func() *state { return newState(made.state, leader{}, now) }
	s := twin()
	table := inForce{built: true, layout: s.layout(layout{labels: true})}
	table.base = layout{labels: true}
	out, gone := made.state.Sessions[7], made.state.Devices[9]
	more := made.Large
	more.More = map[int][]string{7: {more.User(999)}}
	grown, _, ok := s.policy.Regroup(more.Text())
	if !ok {
		t.Fatal("no regrouping")
	}
	another := made.rules(t, 4)
	for _, x := range []struct {
		name   string
		change dataplane.Change
		how    how
		cut    cut
		sets   string // whose elements are deleted
	}{
		{"a session ends", dataplane.Change{EndSessions: []dataplane.Session{out}}, change, cut{dead: []uint32{8}}, "live4 live6 quick4 quick6 session4 session6 start4 start6"},
		{"a device goes", dataplane.Change{RemoveDevices: []dataplane.Device{gone}}, change, cut{dead: []uint32{10}}, "live4 live6 quick4 quick6 role4 role6 session4 session6 start4 start6"},
		{"one user more in a group", dataplane.Change{Rules: grown.With(made.subjects[1998:], nil), PutDevices: made.state.Devices[1998:]}, change, cut{}, "quick4 quick6 role4 role6"},
		{"another policy", dataplane.Change{Rules: another}, replace, cut{refused: true}, ""},
		{"nothing", dataplane.Change{}, change, cut{}, ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := s.planChange(x.change, leader{}, false, table, now)
			if want := twin(); !reflect.DeepEqual(withoutPolicy(s), withoutPolicy(want)) {
				t.Error("the state is another one afterwards")
			}
			p.cut.lost, p.cut.gone, p.cut.changed = nil, nil, nil
			if p.how != x.how || !reflect.DeepEqual(p.cut.and(cut{}), x.cut.and(cut{})) {
				t.Errorf("how %d and cut %+v, want %d and %+v", p.how, p.cut, x.how, x.cut)
			}
			var sets []string
			for name := range p.del {
				name, _, _ = strings.Cut(name, "_")
				sets = append(sets, name)
			}
			slices.Sort(sets)
			if got := strings.Join(slices.Compact(sets), " "); x.how == change && got != x.sets {
				t.Errorf("elements of %q are deleted, want %q", got, x.sets)
			}
			// The same again from where it leads to asks for nothing.
			next := p.next(s)
			p = next.planChange(x.change, leader{}, false, table, now)
			if x.how == change && len(p.add)+len(p.del) > 0 {
				t.Errorf("carried out, it still adds %v and deletes %v", p.add, p.del)
			}
		})
	}
	if p := s.planWhole(twin(), inForce{base: table.base}, now); p.how != rebuild {
		t.Errorf("without a table: how %d", p.how)
	}
	if p := s.planWhole(twin(), table, now); p.how != change || len(p.del)+len(p.add) > 0 || !p.cut.refused {
		t.Errorf("to the same state: how %d, it adds %v and deletes %v", p.how, p.add, p.del)
	}
	other := twin()
	other.policy = another
	if p := s.planWhole(other, table, now); p.how != replace {
		t.Errorf("to another policy: how %d", p.how)
	}
}

// withoutPolicy is s without what only the policy itself compares.
func withoutPolicy(s *state) state {
	x := *s
	x.policy = nil
	return x
}

// counted counts what is sent, and fails it as long as there are failures.
func counted(f *Filter, failures ...error) (ops *int) {
	ops = new(int)
	send := f.commit
	f.commit = func(ctx context.Context, b *nft.Batch) error {
		*ops += len(b.Ops)
		if len(failures) > 0 {
			err := failures[0]
			failures = failures[1:]
			return err
		}
		return send(ctx, b)
	}
	return ops
}

// TestRefusedChange: a change that the kernel refuses for the moment changes nothing, and
// is then made as that change: what is sent does not depend on how many devices there are.
func TestRefusedChange(t *testing.T) {
	needNamespaces(t)
	l := newLarge(t, 2000, 50, 200)
	f := l.open(t)
	if err := f.Set(t.Context(), l.state); err != nil {
		t.Fatal(err)
	}
	out := dataplane.Change{EndSessions: l.state.Sessions[77:78], RemoveDevices: l.state.Devices[78:79]}
	before := withoutPolicy(f.state.with(patch{policy: f.policy}))
	ops := counted(f, &nft.Error{Index: -1, What: "transaction", Errno: unix.ENOMEM})
	if err := f.Update(t.Context(), out); err == nil {
		t.Fatal("the failure was not told")
	}
	if after := withoutPolicy(&f.state); !reflect.DeepEqual(before, after) || !f.built {
		t.Error("what the kernel refused is taken for done, or the table for lost")
	}
	if err := f.Update(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	if *ops > 60 {
		t.Errorf("%d messages were sent for a session and a device, twice", *ops)
	}
	if difference, err := f.verify(); err != nil || difference != "" {
		t.Errorf("the kernel's table differs from the state: %s %v", difference, err)
	}

	// When nobody knows what the kernel has done, the table is made anew.
	counted(f, context.DeadlineExceeded, &nft.Error{Index: 0, What: "x", Errno: unix.ENOENT})
	in := dataplane.Change{PutSessions: l.state.Sessions[77:78]}
	if err := f.Update(t.Context(), in); err == nil || !f.built {
		t.Errorf("not sent: %v, table known: %v", err, f.built)
	}
	if err := f.Update(t.Context(), in); err == nil || f.built {
		t.Errorf("no such set: %v, table known: %v", err, f.built)
	}
	if err := f.Update(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if difference, err := f.verify(); err != nil || difference != "" {
		t.Errorf("the kernel's table differs from the state: %s %v", difference, err)
	}
}

// TestCutIsMadeUpFor: flows that could not be killed are killed with the next change.
func TestCutIsMadeUpFor(t *testing.T) {
	b := newBed(t, simple, nil)
	b.serveWiki()
	s := b.signIn("alice", time.Hour)
	c := b.open("alice", wiki4, 443)
	tracked := func() int {
		flows, err := b.f.listLocked(cut{dead: []uint32{s.Codes[0].Serial}}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for _, fl := range flows {
			if reply := fl.entry.TupleReply.IP.SourceAddress; reply != wiki4 || fl.entry.TupleReply.Proto.SourcePort != 443 {
				t.Errorf("a flow whose answers come from %v", fl.entry.TupleReply)
			}
		}
		return len(flows)
	}
	if n := tracked(); n != 1 {
		t.Fatalf("%d flows of the session, want 1", n)
	}
	b.f.mu.Lock()
	b.f.uncut = cut{dead: []uint32{s.Codes[0].Serial}}
	b.f.mu.Unlock()
	b.update(dataplane.Change{})
	if n := tracked(); n != 0 {
		t.Errorf("%d flows are left", n)
	}
	b.dead("a flow that was cut late", c)
}
