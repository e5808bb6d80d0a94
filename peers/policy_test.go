package peers

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPolicyApply(t *testing.T) {
	c := newCluster(t)
	v := c.View()
	refused(c, PolicyApplyV1{"{ }", 0, ""}, ErrConflict)
	refused(c, PolicyApplyV1{"{ }", 2, ""}, ErrConflict)
	refused(c, PolicyApplyV1{strings.Repeat(" ", maxPolicy+1), 1, ""}, ErrLimit)
	refused(c, PolicyApplyV1{"{}", 1, "two\nlines"}, ErrInvalid)
	r := must(c, PolicyApplyV1{"// second\n{}", 1, "because"})
	if r.Policy.Version != 2 || c.View().Policy() != r.Policy || r.Policy.Note != "because" {
		t.Errorf("applied %+v", r.Policy)
	}
	if p := c.View().PolicyVersion(1); p == nil || p.Text != "{}" {
		t.Errorf("version 1 is %+v", p)
	}
	var versions []uint64
	for p := range c.View().Policies() {
		versions = append(versions, p.Version)
	}
	if !slices.Equal(versions, []uint64{2, 1}) {
		t.Errorf("versions are %v", versions)
	}
	if tt, ok := c.View().Touched(v); !ok || !tt.Policy || tt.Settings {
		t.Errorf("touched %+v %v", tt, ok)
	}
}

// as carries a command out for another actor.
func (c *cluster) as(actor string, b Body) Result {
	c.Helper()
	return c.command(Command{At: c.now, Actor: actor, Body: b})
}

func TestPolicyConfirmed(t *testing.T) {
	c := newCluster(t)
	r := c.as("uid 0", PolicyTryV1{"// two\n{}", 1, "why", time.Minute})
	if r.Err != nil || r.Policy.Version != 2 || c.View().Policy().Text != "// two\n{}" {
		t.Fatalf("tried: %+v", r)
	}
	if w := *c.View().Pending(); w != (Pending{2, 1, c.now.Add(time.Minute), "uid 0"}) {
		t.Errorf("waits: %+v", w)
	}
	// Nothing else is applied meanwhile, by anybody; the error says who and until when.
	for _, b := range []Body{PolicyApplyV1{"{}", 2, ""}, PolicyApplyV1{"{}", 1, ""}, PolicyTryV1{"{}", 2, "", time.Minute}} {
		err := refused(c, b, ErrConflict).Err.Error()
		if want := `policy_waits version=2 by="uid 0" until=2026-11-23T12:01:00Z`; err != want {
			t.Errorf("%T: %q, want %q", b, err, want)
		}
	}
	refused(c, PolicyConfirm{1}, ErrNotFound)
	refused(c, PolicyConfirm{2}, ErrConflict) // by "test"
	refused(c, PolicyRevert{2, false}, ErrConflict)
	c.now = c.now.Add(time.Minute - 1)
	if r := c.as("uid 0", PolicyConfirm{2}); r.Err != nil || r.Policy.Version != 2 || c.View().Pending() != nil {
		t.Fatalf("confirmed: %+v", r)
	}
	refused(c, PolicyRevert{2, true}, ErrNotFound)
	refused(c, PolicyConfirm{2}, ErrNotFound)
	must(c, PolicyApplyV1{"{}", 2, ""})
	if got := actions(c); got != "cluster.init cluster.upgrade policy.apply policy.confirm policy.apply" {
		t.Errorf("audited: %s", got)
	}
}

func actions(c *cluster) string {
	var list []string
	for _, e := range c.View().Audit(0, 0) {
		list = append(list, e.Action)
	}
	return strings.Join(list, " ")
}

func TestPolicyTakenBack(t *testing.T) {
	for _, early := range []bool{false, true} {
		c := newCluster(t)
		c.as("uid 0", PolicyTryV1{"// two\n{}", 1, "", time.Minute})
		// A replica that was restored in between knows of it.
		restored := New()
		if err := restored.Restore(bytes.NewReader(c.snapshot())); err != nil {
			t.Fatal(err)
		}
		if w := restored.View().Pending(); w == nil || *w != *c.View().Pending() {
			t.Fatalf("restored: %+v", w)
		}
		if !early {
			c.now = c.now.Add(time.Minute)
			if r := c.as("uid 0", PolicyConfirm{2}); r.Err == nil {
				t.Error("confirmed too late")
			}
		}
		r := c.as("gateway", PolicyRevert{2, early})
		if r.Err != nil || r.Policy.Version != 3 || r.Policy.By != "gateway" || c.View().Policy().Text != "{}" || c.View().Pending() != nil {
			t.Errorf("early %v: %+v", early, r)
		}
		refused(c, PolicyRevert{2, early}, ErrNotFound)
		e := c.View().Audit(0, 1)[0]
		if e.Action != "policy.revert" || e.Target != "version 3" || !strings.Contains(e.Detail, "version 2 of uid 0") || !strings.Contains(e.Detail, "version 1 is in force again") {
			t.Errorf("audited: %+v", e)
		}
		must(c, PolicyApplyV1{"{}", 3, ""})
	}
}

func TestPolicyTryRefuses(t *testing.T) {
	c := newCluster(t)
	for _, d := range []time.Duration{-time.Second, 0, time.Second - 1, 24*time.Hour + 1} {
		refused(c, PolicyTryV1{"{}", 1, "", d}, ErrInvalid)
	}
	refused(c, PolicyTryV1{"{}", 7, "", time.Minute}, ErrConflict)
	refused(c, PolicyTryV1{"\x00", 1, "", time.Minute}, ErrInvalid)
}

// A clock that ran ahead and was set back does not keep a policy waiting for years.
func TestTimeResetEndsTheWait(t *testing.T) {
	c := newCluster(t)
	c.now = c.now.AddDate(5, 0, 0)
	must(c, PolicyTryV1{"{}", 1, "", time.Minute})
	c.now = c.now.AddDate(-5, 0, 0)
	must(c, TimeReset{})
	must(c, PolicyRevert{2, false})
}

func TestRestoreRefusesAPendingPolicyThatIsNotThere(t *testing.T) {
	c := newCluster(t)
	must(c, PolicyTryV1{"{}", 1, "", time.Minute})
	for _, w := range []Pending{{Version: 1, Back: 1}, {Version: 2, Back: 7}} {
		v := *c.View()
		v.m.Pending = &w
		var b bytes.Buffer
		if _, err := v.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		if err := New().Restore(&b); err == nil {
			t.Errorf("%+v is restored", w)
		}
	}
}
