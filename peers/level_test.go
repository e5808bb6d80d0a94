package peers

import (
	"bytes"
	"errors"
	"strings"
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
	up, ok := c.View().Upgrade("1.2-3-gabc")
	if !ok || up.Level != newestLevel {
		t.Fatalf("the upgrade is %+v, %v", up, ok)
	}
	must(c, up)
	if _, ok := c.View().Upgrade("1.2-3-gabc"); ok || c.View().Level() != newestLevel {
		t.Error("it can be raised again")
	}
	entries := len(c.View().Audit(0, 0))
	must(c, up)
	must(c, Upgrade{Level: levelFirst})
	if n := len(c.View().Audit(0, 0)); n != entries || c.View().Level() != newestLevel {
		t.Errorf("level %d, %d entries after %d", c.View().Level(), n, entries)
	}
}

// A level that this vpnd does not know stops it, as a kind does that it does not know, and
// the error names the vpnd that raised the state to it, wherever it is met: as a command, or
// in a snapshot; and whatever else the future writes there.
func TestUnknownLevelStops(t *testing.T) {
	if _, err := Encode(Command{At: start, Body: Upgrade{Level: newestLevel + 1}}); !errors.Is(err, ErrUnknownKind) {
		t.Error(err)
	}
	for vpnd, want := range map[string]string{"2.0-1-gabc": "needs vpnd 2.0-1-gabc or a newer one", "": "needs a newer vpnd", "\x1b[2J": "needs a newer vpnd"} {
		encode := func(o any) []byte {
			b, err := encMode.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		type future struct {
			Level uint64 `cbor:"1,keyasint"`
			Vpnd  string `cbor:"2,keyasint,omitempty"`
			More  string `cbor:"9,keyasint"`
		}
		_, err := Decode(encode(envelope{Kind: kindUpgrade, Body: encode(future{newestLevel + 1, vpnd, "more"})}))
		checkTooNew(t, err, want)
		type snapshot struct {
			Format uint64 `cbor:"1,keyasint"`
			Vpnd   string `cbor:"21,keyasint,omitempty"`
			More   string `cbor:"99,keyasint"`
		}
		checkTooNew(t, New().Restore(bytes.NewReader(encode(snapshot{newestLevel + 1, vpnd, "more"}))), want)
	}
}

func checkTooNew(t *testing.T, err error, want string) {
	t.Helper()
	e, ok := errors.AsType[*TooNew](err)
	if !ok || !errors.Is(err, ErrUnknownKind) || e.Level != newestLevel+1 || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("%v; want %s", err, want)
	}
}

// From level 3 on the state keeps which vpnd raised it, in snapshots, too.
func TestLevelSaysWhoRaisedIt(t *testing.T) {
	c := emptyCluster(t)
	must(c, Init{settings(), "{}"})
	tx := &tx{m: c.View().m, db: c.View().db, txn: c.View().db.Txn(true)}
	if _, err := (Upgrade{Level: levelNamed, Vpnd: "2.0"}).apply(tx); err != nil || tx.m.Vpnd != "2.0" || tx.m.Level != levelNamed {
		t.Errorf("after the command: %+v, %v", tx.m, err)
	}
	if _, err := (Upgrade{Level: levelNamed + 1, Vpnd: "2.1\n"}).apply(tx); err != nil || tx.m.Vpnd != "" {
		t.Errorf("a version that is none is kept: %q, %v", tx.m.Vpnd, err)
	}
	tx.txn.Abort()
	up, _ := c.View().Upgrade("2.0")
	if want := map[bool]string{true: "2.0"}[newestLevel >= levelNamed]; up.Vpnd != want {
		t.Errorf("an Upgrade to level %d says that vpnd %q made it", up.Level, up.Vpnd)
	}
	must(c, up)
	if c.View().m.Vpnd != up.Vpnd {
		t.Errorf("the state says %q", c.View().m.Vpnd)
	}
	again := New()
	if err := again.Restore(bytes.NewReader(c.snapshot())); err != nil || again.View().m.Vpnd != up.Vpnd {
		t.Errorf("read again: %q, %v", again.View().m.Vpnd, err)
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
		must(c, Upgrade{Level: newestLevel})
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
