package reconcile

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"vpnd/internal/resolve"
	"vpnd/peers"
)

// The plane learns where resources lead: at once what the text says, names when they are known,
// and again when they have moved.
func TestTargets(t *testing.T) {
	b := newBench(t)
	b.must(peers.Upgrade{Level: 5})
	text := `{"resources": {
		"db": {"to": "10.6.0.2:5432"}, "files": {"to": "nas.lan", "ports": ["tcp:445"]}, "wiki": {"to": "http://localhost:3000", "from": "gateway"}, "sock": {"to": "unix:/run/a.sock", "port": 90}},
		"groups": {"group:a": []}, "grants": [{"src": ["*"], "dst": ["db", "files", "wiki", "sock"]}]}`
	b.must(peers.PolicyApply{Text: text, Base: 1, Resources: []string{"db", "files", "sock", "wiki"}})
	b.wait()

	var mu sync.Mutex
	answer := resolve.Answer{TTL: time.Hour}
	fail := errors.New("no answer yet")
	m := &model{}
	r := b.reconciler(m)
	r.targets.resolver.Lookup = func(context.Context, string) (resolve.Answer, error) {
		mu.Lock()
		defer mu.Unlock()
		return answer, fail
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if err := r.Wait(ctx, b.index); err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		var got string
		for range 300 {
			var list []string
			m.mu.Lock()
			for _, s := range m.services {
				list = append(list, fmt.Sprintf("%s %v %v %d%s %v", s.Name, s.Addrs[0], s.Hosts, s.ToPort, s.Path, s.FromGateway))
			}
			m.mu.Unlock()
			if got = strings.Join(list, "; "); got == want {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("the plane has %s\nwant %s", got, want)
	}
	const rest = "; sock 10.77.128.3 [] 0/run/a.sock false; wiki 10.77.128.4 [127.0.0.1] 3000 true"
	expect("db 10.77.128.1 [10.6.0.2] 0 false; files 10.77.128.2 [] 0 false" + rest)
	if got := strings.Join(r.Troubles(), "\n"); !strings.Contains(got, "the resource files leads nowhere") {
		t.Errorf("said is %q", got)
	}
	mu.Lock()
	answer.Addrs, fail = []netip.Addr{netip.MustParseAddr("10.6.0.3")}, nil
	mu.Unlock()
	r.targets.resolver.Want(ctx, nil) // not to wait for 10 s
	r.targets.resolver.Want(ctx, []string{"nas.lan"})
	expect("db 10.77.128.1 [10.6.0.2] 0 false; files 10.77.128.2 [10.6.0.3] 0 false" + rest)
	if list := r.Troubles(); len(list) > 0 {
		t.Errorf("said is %v", list)
	}
	// A change of people alone says nothing of resources, and one of a resource does.
	m.mu.Lock()
	moves := m.moves
	m.mu.Unlock()
	b.must(peers.PolicyApply{Text: strings.Replace(text, `"group:a": []`, `"group:a": ["alice"]`, 1), Base: 2, Resources: []string{"db", "files", "sock", "wiki"}})
	if err := r.Wait(ctx, b.index); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	if m.moves != moves {
		t.Error("a change of people told the plane all services")
	}
	m.mu.Unlock()
	b.must(peers.PolicyApply{Text: strings.Replace(text, "10.6.0.2", "10.6.0.9", 1), Base: 3, Resources: []string{"db", "files", "sock", "wiki"}})
	expect("db 10.77.128.1 [10.6.0.9] 0 false; files 10.77.128.2 [10.6.0.3] 0 false" + rest)
}

func TestNamesThatAreRefused(t *testing.T) {
	var x targets
	x.open(Config{})
	network := []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")}
	x.network.Store(&network)
	for a, refused := range map[string]bool{"127.0.0.1": true, "::1": true, "169.254.1.1": true, "fe80::1": true, "224.0.0.1": true, "0.0.0.0": true,
		"255.255.255.255": true, "10.77.0.5": true, "10.77.200.5": true, "10.6.0.2": false, "2001:db8::1": false} {
		if err := x.refused(netip.MustParseAddr(a)); (err != nil) != refused {
			t.Errorf("%s: %v", a, err)
		}
	}
}
