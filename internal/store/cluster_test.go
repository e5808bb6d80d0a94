package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// cluster is three nodes in memory. It is made inside a synctest bubble.
type cluster struct {
	nodes  []*Store
	wires  []*raft.InmemTransport
	counts []*countingStable
}

// clusterTimers are Raft's own defaults, meant for a local network.
var clusterTimers = timers{time.Second, time.Second, 500 * time.Millisecond}

// countingStable counts how often Raft's term was written.
type countingStable struct {
	raft.StableStore
	terms int
}

func (c *countingStable) SetUint64(k []byte, v uint64) error {
	if string(k) == "CurrentTerm" {
		c.terms++
	}
	return c.StableStore.SetUint64(k, v)
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{}
	var ids []string
	for i := range 3 {
		id := fmt.Sprintf("%032x", i+1)
		ids = append(ids, id)
		_, w := raft.NewInmemTransport(raft.ServerAddress(id))
		c.wires = append(c.wires, w)
	}
	c.heal()
	for i, id := range ids {
		mem := raft.NewInmemStore()
		stable := &countingStable{StableStore: mem}
		c.counts = append(c.counts, stable)
		conf := raft.DefaultConfig()
		conf.LocalID = raft.ServerID(id)
		snaps := raft.NewInmemSnapshotStore()
		if err := raft.BootstrapCluster(conf, mem, mem, snaps, c.wires[i], voters(ids...)); err != nil {
			t.Fatal(err)
		}
		s, err := start(Config{Fatal: func(err error) { t.Errorf("fatal: %v", err) }}, parts{
			id: id, logs: mem, stable: stable, snapshots: snaps, transport: c.wires[i], timers: clusterTimers,
		}, newLogger(nil))
		if err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, s)
	}
	return c
}

func (c *cluster) heal() {
	for _, a := range c.wires {
		for _, b := range c.wires {
			if a != b {
				a.Connect(b.LocalAddr(), b)
			}
		}
	}
}

func (c *cluster) cut(i int) {
	c.wires[i].DisconnectAll()
	for _, w := range c.wires {
		w.Disconnect(c.wires[i].LocalAddr())
	}
}

func (c *cluster) close() {
	for _, n := range c.nodes {
		n.Close()
	}
}

// leader waits for the one node, other than those given, that may act as leader.
func (c *cluster) leader(t *testing.T, but ...int) int {
	t.Helper()
	for range 1000 {
		for i, n := range c.nodes {
			if n.Leader() && !contains(but, i) {
				return i
			}
		}
		time.Sleep(10 * time.Millisecond) // of the bubble's time
	}
	t.Fatal("no leader in ten seconds")
	return 0
}

func contains(list []int, x int) bool {
	for _, y := range list {
		if x == y {
			return true
		}
	}
	return false
}

func TestThreeNodesAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		l := c.leader(t)
		propose(t, c.nodes[l], initial())
		var last uint64
		for i := range 50 {
			last = propose(t, c.nodes[l], addUser(fmt.Sprintf("user%d", i)))
		}
		for i, n := range c.nodes {
			if err := n.Wait(t.Context(), last); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(viewBytes(t, n), viewBytes(t, c.nodes[l])) {
				t.Errorf("node %d differs from its leader", i)
			}
			if i == l {
				continue
			}
			if n.Leader() {
				t.Errorf("node %d leads as well", i)
			}
			if _, _, err := n.Propose(t.Context(), addUser("x")); !errors.Is(err, ErrNoLeader) {
				t.Errorf("a follower's Propose: %v", err)
			}
		}
	})
}

// A leader cut off from the others stops leading; the outcome of what it has under way
// is unknown, and what the others commit meanwhile reaches it afterwards.
func TestLeaderCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		old := c.leader(t)
		propose(t, c.nodes[old], initial())
		c.cut(old)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		lost := addUser("lost")
		if _, _, err := c.nodes[old].Propose(ctx, lost); !errors.Is(err, ErrUnknown) {
			t.Errorf("Propose without a majority: %v", err)
		}
		if c.nodes[old].Leader() {
			t.Error("the node that was cut off still leads")
		}
		now := c.leader(t, old)
		i := propose(t, c.nodes[now], addUser("meanwhile"))
		terms := c.counts[old].terms
		time.Sleep(30 * time.Second)
		if got := c.counts[old].terms; got != terms {
			t.Errorf("without pre-vote: the node that was cut off went through %d terms", got-terms)
		}
		c.heal()
		if err := c.nodes[old].Wait(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		v := c.nodes[old].State().View()
		if v.UserByName("meanwhile") == nil || v.UserByName("lost") != nil {
			t.Error("the healed node does not have the majority's state")
		}
		if _, r, err := c.nodes[c.leader(t)].Propose(t.Context(), lost); err != nil || r.Err != nil {
			t.Errorf("repeated at the new leader: %v, %v", err, r.Err)
		}
	})
}

// A leader that loses leadership with a command under way and regains it answers, and
// the command is carried out once.
func TestProposeOutlivesLostLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		l := c.leader(t)
		propose(t, c.nodes[l], initial())
		// Nobody has a majority: nobody is elected meanwhile.
		for i := range c.nodes {
			c.cut(i)
		}
		type answer struct {
			i   uint64
			err error
		}
		done := make(chan answer, 1)
		go func() {
			i, r, err := c.nodes[l].Propose(t.Context(), addUser("alice"))
			done <- answer{i, errors.Join(err, r.Err)}
		}()
		time.Sleep(3 * time.Second)
		if c.nodes[l].Leader() {
			t.Error("leads without a majority")
		}
		// Of these two only the old leader has alice in its log: only it can be elected.
		other := c.wires[(l+1)%3]
		c.wires[l].Connect(other.LocalAddr(), other)
		other.Connect(c.wires[l].LocalAddr(), c.wires[l])
		a := <-done
		if a.err != nil {
			t.Fatal(a.err)
		}
		if c.nodes[l].State().View().UserByName("alice") == nil {
			t.Error("acknowledged and not there")
		}
	})
}

// A node starts with what it has: beside a leader with what that one has committed, and
// without one after a while.
func TestCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		l := c.leader(t)
		i := propose(t, c.nodes[l], initial())
		for n, s := range c.nodes {
			if err := s.CatchUp(t.Context(), time.Minute); err != nil {
				t.Errorf("node %d beside a leader: %v", n, err)
			}
			if err := s.Wait(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
		cut := (l + 1) % 3
		c.cut(cut)
		time.Sleep(10 * time.Second)
		began := time.Now()
		if err := c.nodes[cut].CatchUp(t.Context(), 3*time.Second); !errors.Is(err, ErrNoLeader) || time.Since(began) != 3*time.Second {
			t.Errorf("without a leader: %v after %v", err, time.Since(began))
		}
		if _, made := c.nodes[cut].State().View().Settings(); !made {
			t.Error("without a leader: no state")
		}
	})
}
