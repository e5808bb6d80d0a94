package peers

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func (c *cluster) ask(request string, b Body) Result {
	c.Helper()
	return c.command(Command{Request: id(request), At: c.now, Actor: "test", Body: b})
}

func TestRepeatedRequestGetsTheFirstAnswer(t *testing.T) {
	c := newCluster(t)
	first := c.ask("add", UserAdd{id("alice"), "alice", nil})
	wrong := c.ask("again", UserAdd{id("bob"), "alice", nil})
	if first.Err != nil || !errors.Is(wrong.Err, ErrExists) {
		t.Fatal(first.Err, wrong.Err)
	}
	policy := c.ask("policy", PolicyApplyV1{"{ }", 1, ""})
	must(c, UserRemove{id("alice")})
	for round := range 2 {
		c.now = c.now.Add(time.Hour)
		before := c.contents()
		if r := c.ask("add", UserAdd{id("alice"), "alice", nil}); r.Err != nil || r.User != nil {
			t.Errorf("round %d: the repeat gets %+v", round, r)
		}
		if r := c.ask("again", UserAdd{id("bob"), "alice", nil}); !errors.Is(r.Err, ErrExists) || r.Err.Error() != wrong.Err.Error() {
			t.Errorf("round %d: the repeat gets %v, want %v", round, r.Err, wrong.Err)
		}
		if r := c.ask("policy", PolicyApplyV1{"{ }", 1, ""}); r.Err != nil || r.Policy.Version != policy.Policy.Version || r.Policy.Text != "{ }" {
			t.Errorf("round %d: the repeat gets %+v", round, r.Policy)
		}
		if !bytes.Equal(before, c.contents()) {
			t.Errorf("round %d: a repeat changes something", round)
		}
		if a, ok := c.View().Answer(id("again")); !ok || !errors.Is(a.Result.Err, ErrExists) {
			t.Errorf("round %d: the look-up gives %+v", round, a)
		}
		if c.View().User(id("alice")) != nil {
			t.Fatalf("round %d: the repeat was carried out again", round)
		}
		// The second time the answers come from a snapshot.
		if err := c.Restore(bytes.NewReader(c.snapshot())); err != nil {
			t.Fatal(err)
		}
	}
}

// remembered is how many answers are kept.
func (c *cluster) remembered() (n int) {
	for range scan[request](c.View(), tableRequests, byID, nil) {
		n++
	}
	return n
}

// fill remembers n answers in one go, as so many commands would have been.
func (c *cluster) fill(n int) {
	v := c.View()
	t := &tx{db: v.db, txn: v.db.Txn(true), m: v.m, index: c.index}
	for range n {
		c.index++
		t.m.Requests++
		t.put(tableRequests, &request{ID: id(number("filled", int(c.index))), Order: t.m.Requests, Index: c.index, At: t.m.Time, Kind: kindExpire})
	}
	t.m.Index = c.index
	t.txn.Commit()
	c.publish(newView(v.db, t.m, v.journal))
}

func TestAnswersAreForgotten(t *testing.T) {
	c := newCluster(t)
	made := c.View().Request(id("first"))
	first := Command{Request: made.ID, Base: made.Base, At: c.now, Actor: "test", Body: Note{"first", "", ""}}
	must := func(cmd Command, what string, want error) {
		t.Helper()
		before := len(c.View().Audit(1, 0))
		r := c.command(cmd)
		if !errors.Is(r.Err, want) || len(c.View().Audit(1, 0)) != before {
			t.Fatalf("%s: %v, with %d entries after %d", what, r.Err, len(c.View().Audit(1, 0)), before)
		}
	}
	c.command(first)
	// Many within a minute of the state's time, and then as many again.
	c.fill(keptAnswers)
	must(first, "after more than are kept whatever their age", nil)
	// The upgrade is one that had no request id.
	c.fill(mostAnswers - keptAnswers - 1)
	must(first, "as the oldest of all", nil)
	c.ask("one more", Expire{})
	if n := c.remembered(); n != mostAnswers {
		t.Errorf("%d answers are remembered", n)
	}
	must(first, "forgotten", ErrTooOld)
	if r := c.ask("after it", Note{"new", "", ""}); r.Err != nil {
		t.Error(r.Err)
	}
	// What is older than a minute goes, except the last ones.
	c.now = c.now.Add(recentAnswers + time.Second)
	for i := range mostAnswers/forgetAtOnce + 1 {
		c.ask(number("later", i), Expire{})
	}
	if n := c.remembered(); n != keptAnswers {
		t.Errorf("%d answers are remembered", n)
	}
	// Time set back keeps more, and opens nothing.
	c.now = c.now.Add(-time.Hour)
	c.ask("reset", TimeReset{})
	must(first, "with the time set back", ErrTooOld)
}

// With the answers gone, a repeat from before any of them is refused at any rate and by no
// clock; and so is one that cannot be of this state.
func TestTooOld(t *testing.T) {
	c := newCluster(t)
	for i := range 3 {
		c.ask(number("request", i), Expire{})
	}
	index := c.View().Index()
	for name, base := range map[string]uint64{"level 1's": 0, "before the upgrade": c.View().m.Forgot - 1, "of another state": index + 100, "far": 1 << 63} {
		// command gives a base to a command without one.
		raw, err := Encode(Command{Request: id("late " + name), Base: base, At: c.now, Actor: "test", Body: Note{"late", "", ""}})
		if err != nil {
			t.Fatal(err)
		}
		c.index++
		if r, err := c.Apply(c.index, raw); err != nil || !errors.Is(r.Err, ErrTooOld) {
			t.Errorf("%s base %d: %v, %v", name, base, r.Err, err)
		}
		if _, ok := c.View().Answer(id("late " + name)); ok {
			t.Errorf("%s base: it is remembered", name)
		}
	}
	if r := c.command(Command{Request: id("in time"), Base: c.View().m.Forgot, At: c.now, Actor: "test", Body: Note{"in time", "", ""}}); r.Err != nil {
		t.Error(r.Err)
	}
}

func TestRepeatOfAnotherKindOrActor(t *testing.T) {
	c := newCluster(t)
	enrol(c, "alice", "laptop")
	c.ask("code", Failure{id("alice")})
	c.now = c.now.Add(time.Minute)
	before := c.contents()
	for name, cmd := range map[string]Command{
		"another kind":  {Actor: "test", Body: Login{id("alice/laptop"), c.step(0)}},
		"another actor": {Actor: "mallory", Body: Failure{id("alice")}},
	} {
		cmd.Request, cmd.At = id("code"), c.now
		if r := c.command(cmd); !errors.Is(r.Err, ErrConflict) {
			t.Errorf("%s: %v", name, r.Err)
		}
	}
	if !bytes.Equal(before, c.contents()) {
		t.Error("something has changed")
	}
	a, ok := c.View().Answer(id("code"))
	if !ok || !a.To(Failure{}) || a.To(Login{}) || a.Actor != "test" || a.Index == 0 || a.Result.User.Failures != 1 {
		t.Errorf("the answer is %+v, %v", a, ok)
	}
	if _, ok := c.View().Answer(id("another")); ok {
		t.Error("there is an answer to nothing")
	}
}

// What a repeat is told about is as it is by then.
func TestRepeatTellsOfObjectsAsTheyAre(t *testing.T) {
	c := newCluster(t)
	_, d := enrol(c, "alice", "laptop")
	rotate := DeviceRotate{d.ID, key("second"), Sealed("psk")}
	c.ask("rotate", rotate)
	must(c, DeviceRotate{d.ID, key("third"), Sealed("another psk")})
	if r := c.ask("rotate", rotate); r.Err != nil || r.Device.PublicKey != key("third") || r.User.Name != "alice" {
		t.Errorf("the repeat gets %+v", r)
	}
	must(c, DeviceRemove{d.ID})
	if r := c.ask("rotate", rotate); r.Err != nil || r.Device != nil || r.User == nil {
		t.Errorf("the repeat gets %+v", r)
	}
}

// Of more answers than are kept whatever their age, those of the last minute stay; one that is
// just a minute old is not of it.
func TestAnswerJustAsOldAsIsKept(t *testing.T) {
	for _, x := range []struct {
		age  time.Duration
		want int
	}{{recentAnswers - time.Nanosecond, keptAnswers + 2}, {recentAnswers, keptAnswers}} {
		c := newCluster(t)
		c.fill(keptAnswers)
		before := c.remembered()
		c.now = c.now.Add(x.age)
		c.ask("now", Expire{})
		if n := c.remembered(); n != min(before+1, x.want) {
			t.Errorf("at the age of %v %d of %d are remembered, want %d", x.age, n, before+1, x.want)
		}
	}
}

// The last reason of level 1 is read, and what would be after it is a newer vpnd's.
func TestReasonsOfLevel1(t *testing.T) {
	last := uint64(len(sentinels))
	if _, err := (wireRequest{ID: id("r"), Reason: last}).request(nil); err != nil {
		t.Errorf("the last reason: %v", err)
	}
	if _, err := (wireRequest{ID: id("r"), Reason: last + 1}).request(nil); err == nil {
		t.Error("an unknown reason is read")
	}
}
