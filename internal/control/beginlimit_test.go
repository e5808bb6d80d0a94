package control

import (
	"fmt"
	"testing"
	"time"

	"vpnd/peers"
)

// Who holds an invitation cannot fill log and audit log by opening it again and again.
func TestBeginningsAreLimited(t *testing.T) {
	w := newWorld(t)
	token := w.invited("alice")
	before := w.View().Index()
	var refused *Error
	for i := range 500 {
		if _, err := w.EnrolBegin(t.Context(), token, fmt.Sprintf("browser %d", i)); err != nil {
			refused = wantCode(t, err, KindLimit)
		}
	}
	if refused == nil || refused.RetryAfter <= 0 || refused.RetryAfter > beginEvery {
		t.Fatalf("500 browsers: %+v", refused)
	}
	if n := w.View().Index() - before; n > beginBurst+2 {
		t.Errorf("%d commands", n)
	}
	w.advance(beginEvery)
	e, err := w.EnrolBegin(t.Context(), token, "hers")
	if err != nil {
		t.Fatal(err)
	}
	for range 100 { // reloading the page where it was begun is free
		if again, err := w.EnrolBegin(t.Context(), token, "hers"); err != nil || again != e {
			t.Fatal(err)
		}
	}
	if _, err := w.EnrolBegin(t.Context(), w.invited("bob"), "his"); err != nil {
		t.Errorf("another invitation: %v", err)
	}
}

func TestBeginLimitIsBounded(t *testing.T) {
	var l beginLimit
	now := time.Now()
	take := func(i int, now time.Time) time.Duration {
		return l.take(peers.ID{byte(i), byte(i >> 8), byte(i >> 16), 1}, now)
	}
	for i := range beginsKept {
		if take(i, now) != 0 {
			t.Fatal("a first beginning is refused")
		}
	}
	if take(beginsKept, now) == 0 || len(l.buckets) > beginsKept {
		t.Errorf("%d invitations are remembered", len(l.buckets))
	}
	if take(beginsKept, now.Add(time.Hour)) != 0 || len(l.buckets) > 1 {
		t.Errorf("after an hour %d are", len(l.buckets))
	}
}

// A device without a session cannot fill the log by signing out.
func TestSignOutWithoutSession(t *testing.T) {
	w := newWorld(t)
	p := w.enrolled("alice")
	before := w.View().Index()
	for range 10 {
		if err := w.SignOut(t.Context(), p.addr); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.View().Index() - before; n != 0 {
		t.Errorf("%d commands", n)
	}
}
