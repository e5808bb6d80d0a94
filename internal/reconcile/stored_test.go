package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"vpnd/acl/rules"
	"vpnd/peers"
)

// writer takes lines.
type writer func(string)

func (w writer) Write(b []byte) (int, error) { w(string(b)); return len(b), nil }

// A policy that an earlier vpnd accepted and this one would not: the grant that is refused
// gives nothing, the others hold, through changes of users, groups and back to an older
// version, and the log names it once for each version.
func TestStoredPolicyIsNotRefused(t *testing.T) {
	b := newBench(t)
	var mu sync.Mutex
	var log []string
	r := b.reconciler(&model{})
	r.Log = slog.New(slog.NewTextHandler(writer(func(line string) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, line)
	}), nil))
	const stored = `{"hosts": {"office": "192.168.7.0/24"}, "groups": {"group:a": [%s]}, "grants": [
	{"src": ["group:a"], "dst": ["10.1.2.3"], "ip": ["tcp:443"]},
	{"src": ["office", "autogroup:member"], "dst": ["autogroup:self", "10.1.2.3"], "ip": ["tcp:22"], "mfa": "off"}]}`
	_, device := b.user("u1")
	b.must(peers.PolicyApplyV1{Text: fmt.Sprintf(stored, `"u1"`), Base: 1})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	defer func() { cancel(); <-done }()
	holds := func(want bool, when string) {
		t.Helper()
		wait, stop := context.WithTimeout(ctx, 10*time.Second)
		defer stop()
		if err := r.Wait(wait, b.index); err != nil {
			t.Fatal(err)
		}
		x := rules.Packet{Src: b.state.View().Device(device).Addrs[0], Dst: netip.MustParseAddr("10.1.2.3"), Proto: 6, DstPort: 443,
			SrcSession: rules.Session{Until: b.now().Add(time.Hour), Code: b.now()}}
		if v := r.Rules().Verdict(x, b.now()); v.Allow != want {
			t.Errorf("%s: the grant that is not refused: %+v", when, v)
		}
		if x.DstPort = 22; r.Rules().Verdict(x, b.now()).Allow {
			t.Errorf("%s: the refused grant allows", when)
		}
	}
	holds(true, "at start")
	b.user("u2")
	holds(true, "with another user")
	b.must(peers.PolicyApplyV1{Text: fmt.Sprintf(stored, `"u2"`), Base: 2})
	holds(false, "after a change of a group")
	b.must(peers.PolicyTryV1{Text: `{}`, Base: 3, For: time.Minute})
	holds(false, "with another policy")
	b.past.Add(int64(2 * time.Minute))
	b.must(peers.PolicyRevert{Version: 4})
	holds(false, "after the other policy was taken back")
	b.must(peers.PolicyApplyV1{Text: fmt.Sprintf(stored, `"u1"`), Base: b.state.View().Policy().Version})
	holds(true, "after a rollback")
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(strings.Join(log, "\n"), `, line 3" why="this grant gives nothing`); n != 4 {
		t.Errorf("4 versions have the grant, and the log names it %d times:\n%s", n, strings.Join(log, "\n"))
	}
}
