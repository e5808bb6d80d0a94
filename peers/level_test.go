package peers

import (
	"bytes"
	"errors"
	"testing"
)

// What a newer level brings is refused before the state is there, and nothing of it is
// kept that an older vpnd could not read.
func TestNothingOfANewerLevelBeforeIt(t *testing.T) {
	c := emptyCluster(t)
	must(c, Init{settings(), "{}"})
	if v := c.View(); v.Level() != levelFirst || v.Request(id("r")).Base != 0 {
		t.Fatalf("a new state is at level %d", v.Level())
	}
	before := c.contents()
	for name, cmd := range map[string]Command{
		"a new kind": {Request: id("configure"), At: c.now, Body: Configure{}},
		"a base":     {Request: id("early"), Base: 1, At: c.now, Body: Expire{}},
	} {
		if r := c.command(cmd); !errors.Is(r.Err, ErrLevel) {
			t.Errorf("%s: %v", name, r.Err)
		}
	}
	if !bytes.Equal(before, c.contents()) {
		t.Error("something has changed")
	}
	up, ok := c.View().Upgrade()
	if !ok || up.Level != newestLevel {
		t.Fatalf("the upgrade is %+v, %v", up, ok)
	}
	must(c, up)
	if _, ok := c.View().Upgrade(); ok || c.View().Level() != newestLevel {
		t.Error("it can be raised again")
	}
	entries := len(c.View().Audit(0, 0))
	must(c, up)
	must(c, Upgrade{levelFirst})
	if n := len(c.View().Audit(0, 0)); n != entries || c.View().Level() != newestLevel {
		t.Errorf("level %d, %d entries after %d", c.View().Level(), n, entries)
	}
}

// A level that this vpnd does not know stops it, as a kind does that it does not know.
func TestUnknownLevelStops(t *testing.T) {
	if _, err := Encode(Command{At: start, Body: Upgrade{newestLevel + 1}}); !errors.Is(err, ErrUnknownKind) {
		t.Error(err)
	}
}

// Answers that level 1 remembered are still known after the upgrade, whether a node was
// there all the time or read them from a snapshot.
func TestUpgradeKeepsAnswers(t *testing.T) {
	c := emptyCluster(t)
	must(c, Init{settings(), "{}"})
	add := UserAdd{id("alice"), "alice", nil}
	c.ask("add", add)
	c.ask("wrong", UserAdd{id("bob"), "alice", nil})
	restored := &cluster{TB: t, State: New(), index: c.index, now: c.now}
	if err := restored.Restore(bytes.NewReader(c.snapshot())); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*cluster{c, restored} {
		must(c, Upgrade{newestLevel})
		if r := c.ask("add", add); r.Err != nil || r.User.Name != "alice" {
			t.Errorf("the repeat gets %+v", r)
		}
		if r := c.ask("wrong", UserAdd{id("bob"), "alice", nil}); !errors.Is(r.Err, ErrExists) || r.Err.Error() != `former reason=2 sentence="there is a user alice already: choose another name"` {
			t.Errorf("the repeat gets %v", r.Err)
		}
	}
	if !bytes.Equal(c.snapshot(), restored.snapshot()) {
		t.Error("the two differ")
	}
	c.ask("after", Expire{})
	again := New()
	if err := again.Restore(bytes.NewReader(c.snapshot())); err != nil || !bytes.Equal(snapshotOf(t, again), c.snapshot()) {
		t.Errorf("the new form is not read as it was written: %v", err)
	}
}
