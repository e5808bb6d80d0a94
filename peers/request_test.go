package peers

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func (c *cluster) ask(request string, b Body) Result {
	c.Helper()
	return c.command(Command{id(request), c.now, "test", b})
}

func TestRepeatedRequestGetsTheFirstAnswer(t *testing.T) {
	c := newCluster(t)
	first := c.ask("add", UserAdd{id("alice"), "alice", nil})
	wrong := c.ask("again", UserAdd{id("bob"), "alice", nil})
	if first.Err != nil || !errors.Is(wrong.Err, ErrExists) {
		t.Fatal(first.Err, wrong.Err)
	}
	policy := c.ask("policy", PolicyApply{"{ }", 1, ""})
	must(c, UserRemove{id("alice")})
	for round := range 2 {
		c.now = c.now.Add(time.Hour)
		before := c.contents()
		if r := c.ask("add", UserAdd{id("alice"), "alice", nil}); r.Err != nil || r.User == nil || r.User.Name != "alice" {
			t.Errorf("round %d: the repeat gets %+v", round, r)
		}
		if r := c.ask("again", UserAdd{id("bob"), "alice", nil}); !errors.Is(r.Err, ErrExists) || r.Err.Error() != wrong.Err.Error() {
			t.Errorf("round %d: the repeat gets %v, want %v", round, r.Err, wrong.Err)
		}
		if r := c.ask("policy", PolicyApply{"{ }", 1, ""}); r.Err != nil || r.Policy.Version != policy.Policy.Version || r.Policy.Text != "{ }" {
			t.Errorf("round %d: the repeat gets %+v", round, r.Policy)
		}
		if !bytes.Equal(before, c.contents()) {
			t.Errorf("round %d: a repeat changes something", round)
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

func TestRequestsAreForgotten(t *testing.T) {
	c := newCluster(t)
	c.ask("first", Note{"first", "", ""})
	for i := range rememberedRequests - 1 {
		c.ask(number("request", i), Expire{})
	}
	c.ask("first", Note{"first", "", ""})
	if n := len(c.View().Audit(1, 0)); n != 1 {
		t.Fatalf("%d entries: the oldest of %d is forgotten", n, rememberedRequests)
	}
	c.ask("one more", Expire{})
	c.ask("first", Note{"first", "", ""})
	if n := len(c.View().Audit(1, 0)); n != 2 {
		t.Errorf("%d entries: a repeat after %d others is still known", n, rememberedRequests)
	}
	n := 0
	for range scan[request](c.View(), tableRequests, byID, nil) {
		n++
	}
	if n != rememberedRequests {
		t.Errorf("%d answers are kept", n)
	}
}
