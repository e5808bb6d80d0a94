package filter

import (
	"context"
	"encoding/json"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"vpnd/internal/dataplane"
)

// watched runs f with an owned table and with the fallback for kernels before 6.9.
func watched(t *testing.T, f func(t *testing.T, owner bool)) {
	t.Run("owned", func(t *testing.T) { f(t, true) })
	t.Run("watched", func(t *testing.T) { f(t, false) })
}

// TestForeignChanges: whatever somebody else does to the table is undone within 2 s and
// reported, and interrupts nobody; an owned table is not even touched.
func TestForeignChanges(t *testing.T) {
	changes := map[string]string{
		"flush ruleset":         "table vpnd in nftables removed",
		"delete table":          "table vpnd in nftables removed",
		"flush chain":           "a rule of chain forward in nftables removed",
		"add rule":              "a rule of chain tunnel4 in nftables added",
		"delete session":        "an element of set session4 in nftables removed",
		"add allow":             "an element of set allow_12h in nftables added",
		"flush set":             "an element of set live4_12h in nftables removed",
		"add a chain of others": "chain theirs in nftables added",
		"move a resource":       "an element of set service4 in nftables removed",
		"publish a port":        "an element of set service_port4 in nftables added",
		"relay a resource":      "an element of set relayed4 in nftables added",
	}
	commands := map[string]string{
		"flush ruleset":         "flush ruleset",
		"delete table":          "delete table inet vpnd",
		"flush chain":           "flush chain inet vpnd forward",
		"add rule":              "insert rule inet vpnd tunnel4 accept",
		"delete session":        "delete element inet vpnd session4 { 10.77.0.2 }",
		"add allow":             "add element inet vpnd allow_12h { 2:1 }",
		"flush set":             "flush set inet vpnd live4_12h",
		"add a chain of others": "add chain inet vpnd theirs",
		"move a resource":       "delete element inet vpnd service4 { 10.77.128.1 }",
		"publish a port":        "add element inet vpnd service_port4 { 10.77.128.2 . tcp . 22 : 192.168.50.2 . 22 }",
		"relay a resource":      "add element inet vpnd relayed4 { 10.77.128.2 }",
	}
	watched(t, func(t *testing.T, owner bool) {
		b := newBed(t, simple, func(c *Config, s *dataplane.State) {
			c.noOwner = !owner
			s.Services = []dataplane.Service{service("a", 1, tcpPort(443), wiki4)}
		})
		owner = owner && b.f.kernel.owner // older kernels have no such tables
		b.serveWiki()
		s := b.signIn("alice", time.Hour)
		defer b.signOut(s)
		b.quiet()
		c := b.open("alice", wiki4, 443)
		before := listing(t)
		for name, want := range changes {
			out, err := exec.Command("nft", strings.Fields(commands[name])...).CombinedOutput()
			if owner {
				if err == nil && name != "flush ruleset" {
					t.Errorf("%s: somebody else could change an owned table", name)
				}
				b.quiet()
			} else {
				if err != nil {
					t.Fatalf("%s: %v\n%s", name, err, out)
				}
				select {
				case d := <-b.drift:
					if got := d.What + " " + d.Was; got != want {
						t.Errorf("%s: reported %q, want %q", name, got, want)
					}
				case <-time.After(2 * time.Second):
					t.Errorf("%s: not put right within 2 s", name)
				}
				for len(b.drift) > 0 {
					<-b.drift
				}
			}
			if after := listing(t); after != before {
				t.Errorf("%s: the table is\n%s\nwant\n%s", name, after, before)
			}
			b.alive(name, c)
			got, err := b.tcp("bob", wiki4, 443)
			b.refused(name+": bob", got, err)
		}
	})
}

// quiet fails when something is reported.
func (b *bed) quiet() {
	b.t.Helper()
	select {
	case d := <-b.drift:
		b.t.Errorf("reported without cause: %s %s", d.What, d.Was)
	case <-time.After(100 * time.Millisecond):
	}
}

// listing is our table without what changes by itself: counters and timeouts.
func listing(t testing.TB) string {
	t.Helper()
	s := normal(t, runNFT(t, "-j", "list", "table", "inet", "vpnd"), "")
	// A table that is made anew has another tag to its labels.
	s = tagged.ReplaceAllString(s, `"concat":["$1",$2,"label"]`)
	return tagging.ReplaceAllString(s, `rule "chain":"known"`)
}

var (
	tagged  = regexp.MustCompile(`"concat":\["([^"]+)",(\d+),\d+\]`)
	tagging = regexp.MustCompile(`(?m)^rule \{"chain":"known_.*"label".*$`)
)

// normal sorts a JSON ruleset into comparable text, leaving out the table named.
func normal(t testing.TB, text, without string) string {
	t.Helper()
	var doc struct {
		Nftables []map[string]map[string]any `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, o := range doc.Nftables {
		for kind, v := range o {
			if kind == "metainfo" || v["table"] == without || (kind == "table" && v["name"] == without) {
				continue
			}
			lines = append(lines, kind+" "+string(strip(t, v)))
		}
	}
	// Elements of a set have no order.
	return strings.Join(lines, "\n")
}

// strip removes handles, counters and expiry, and sorts elements.
func strip(t testing.TB, v any) []byte {
	t.Helper()
	var walk func(any) any
	walk = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for _, k := range []string{"handle", "packets", "bytes", "expires", "timeout"} {
				delete(v, k)
			}
			for k, x := range v {
				v[k] = walk(x)
				if k == "elem" {
					if list, ok := v[k].([]any); ok {
						v[k] = sortJSON(list)
					}
				}
			}
		case []any:
			for i := range v {
				v[i] = walk(v[i])
			}
		}
		return v
	}
	b, err := json.Marshal(walk(v))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sortJSON(list []any) []any {
	text := make([]string, len(list))
	for i, x := range list {
		b, _ := json.Marshal(x)
		text[i] = string(b)
	}
	for i := range text {
		for j := i + 1; j < len(text); j++ {
			if text[j] < text[i] {
				text[i], text[j] = text[j], text[i]
				list[i], list[j] = list[j], list[i]
			}
		}
	}
	return list
}

// TestHostFirewall: what is not ours is the same before, during and after.
func TestHostFirewall(t *testing.T) {
	watched(t, func(t *testing.T, owner bool) {
		needNamespaces(t)
		sh(t, `nft -f - <<'X'
table inet theirs {
	set s { type ipv4_addr; elements = { 192.0.2.1 } }
	chain input { type filter hook input priority 0; policy accept; tcp dport 9 drop; }
	chain forward { type filter hook forward priority 0; policy accept; ip saddr @s drop; }
}
table ip nat {
	chain POSTROUTING { type nat hook postrouting priority 100; oifname "nowhere" masquerade; }
}
X`)
		host := func() string { return normal(t, runNFT(t, "-j", "list", "ruleset"), "vpnd") }
		before := host()
		b := newBed(t, simple, func(c *Config, _ *dataplane.State) { c.noOwner = !owner })
		s := b.signIn("alice", time.Hour)
		if got := host(); got != before {
			t.Errorf("while running:\n%s\nwant\n%s", got, before)
		}
		// kill -9: the sockets close, nothing is taken away.
		b.f.sock.Close()
		if !strings.Contains(runNFT(t, "list", "tables"), "vpnd") {
			t.Fatal("the table is gone with its process")
		}
		b.serveWiki()
		got, err := b.tcp("alice", wiki4, 443)
		b.want("after kill -9", "wiki", got, err)
		if got := host(); got != before {
			t.Errorf("after kill -9:\n%s\nwant\n%s", got, before)
		}
		old := b.f
		b.f, err = Open(context.Background(), b.f.c)
		if err != nil {
			t.Fatal(err)
		}
		old.mu.Lock()
		old.closed = true
		old.mu.Unlock()
		old.watch.close()
		c := b.open("alice", wiki4, 443)
		b.state.Sessions = []dataplane.Session{s}
		b.set()
		b.alive("a flow over a restart", c)
		if err := b.f.Close(); err != nil {
			t.Fatal(err)
		}
		if got := host(); got != before {
			t.Errorf("after the stop:\n%s\nwant\n%s", got, before)
		}
		if strings.Contains(runNFT(t, "list", "tables"), "vpnd") {
			t.Error("the table is still there")
		}
	})
}

// TestSecondDaemon: another vpnd's table is not taken over while its owner lives.
func TestSecondDaemon(t *testing.T) {
	b := newBed(t, simple, nil)
	if !b.f.kernel.owner {
		t.Log("this kernel has no owned tables")
		return
	}
	other, err := Open(t.Context(), b.f.c)
	if err != nil {
		t.Fatal(err)
	}
	err = other.Set(t.Context(), b.state)
	if err == nil || !strings.Contains(err.Error(), "vpnd") {
		t.Errorf("a second filter: %v", err)
	}
	other.mu.Lock()
	other.closed = true
	other.mu.Unlock()
	other.sock.Close()
	other.watch.close()
}

// TestSetIsQuiet: repeating Set changes nothing in the kernel.
func TestSetIsQuiet(t *testing.T) {
	b := newBed(t, simple, nil)
	s := b.signIn("alice", time.Hour)
	b.state.Sessions = []dataplane.Session{s}
	b.set()
	handles := func(s string) (out []string) {
		for _, l := range strings.Split(s, "\n") {
			if _, h, ok := strings.Cut(l, "# handle "); ok {
				out = append(out, h)
			}
		}
		return out
	}
	before := handles(runNFT(t, "-a", "list", "table", "inet", "vpnd"))
	b.set()
	b.set()
	if after := handles(runNFT(t, "-a", "list", "table", "inet", "vpnd")); !reflect.DeepEqual(before, after) {
		t.Error("a repeated Set made rules anew")
	}
	b.quiet()
}
