package peers

import (
	"bytes"
	"io"
	"slices"
	"testing"
	"time"
)

func TestRestoreRefuses(t *testing.T) {
	c := newCluster(t)
	enrol(c, "alice", "laptop")
	good := c.snapshot()
	s := New()
	if err := s.Restore(bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	view := s.View()
	future := slices.Clone(good)
	if future[1] != 1 || future[2] != newestLevel {
		t.Fatalf("the header begins with % x", future[:4])
	}
	future[2]++
	for name, b := range map[string][]byte{
		"nothing": nil, "garbage": []byte("garbage"), "a byte more": append(slices.Clone(good), 0), "a newer format": future,
	} {
		if err := s.Restore(bytes.NewReader(b)); err == nil {
			t.Errorf("%s is restored", name)
		}
	}
	for n := range good {
		if err := s.Restore(bytes.NewReader(good[:n])); err == nil {
			t.Fatalf("%d of %d bytes are restored", n, len(good))
		}
	}
	if s.View() != view {
		t.Error("a failed restore changes the state")
	}
	if err := s.Restore(io.MultiReader(bytes.NewReader(good[:7]), bytes.NewReader(good[7:]))); err != nil {
		t.Errorf("in two parts: %v", err)
	}
	select {
	case <-view.Changed():
	default:
		t.Error("a restore is not told")
	}
}

func TestSnapshotAndRestoreIsTheIdentity(t *testing.T) {
	c := newCluster(t)
	_, d := enrol(c, "alice", "laptop")
	c.now = c.now.Add(time.Minute)
	must(c, Login{d.ID, c.step(0)})
	want := c.snapshot()
	s := New()
	if err := s.Restore(bytes.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := s.Snapshot().WriteTo(&got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Error("a restored state writes another snapshot")
	}
}
