package peers

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

var update = flag.Bool("update", false, "record testdata anew: only for a version that was never released")

// randomLog makes a log that uses every kind, refusals and repeats included.
func randomLog(t testing.TB, seed uint64, n int) [][]byte {
	r := rand.New(rand.NewPCG(seed, 1))
	c := emptyCluster(t)
	s := settings("10.0.0.0/28", "fd00::/64") // so small that addresses run out
	must(c, Init{s, "{}"})
	pick := func(kind string, n int) string { return number(kind, r.IntN(n)) }
	for i := range n {
		c.now = c.now.Add(time.Duration(r.IntN(90)-10) * time.Second)
		if r.IntN(200) == 0 {
			c.now = c.now.Add(20 * time.Hour)
		}
		user, dev := pick("user", 12), pick("device", 3)
		u, d := id(user), id(user+"/"+dev)
		fresh := pick("fresh", 1<<30)
		inv := NewInvitation{id("invitation " + fresh), hash(fresh), c.now.Add(time.Duration(r.IntN(72)) * time.Hour)}
		open := inv.ID // or one that there is
		for i := range c.View().InvitationsOf(u) {
			open = i.ID
		}
		added := device(user, dev)
		if r.IntN(3) == 0 {
			added.ID, added.PublicKey = id(fresh), key(fresh)
		}
		choose := []Body{
			UserAdd{u, user, &inv}, UserAdd{u, user, nil}, UserEnable{u, r.IntN(4) > 0}, UserRemove{u}, UserUnlock{u}, TOTPReset{u},
			InvitationAdd{u, inv}, InvitationRemove{open}, DeviceAdd{u, added}, DeviceEnable{d, r.IntN(4) > 0}, DeviceRemove{d},
			DeviceRotate{d, key(fresh), Sealed("rotated " + fresh)}, SessionEnd{Device: d}, SessionEnd{User: u}, Expire{},
			PolicyApplyV1{"// " + fresh + "\n{}", c.View().Policy().Version - uint64(r.IntN(2)), ""}, Note{"note", fresh, ""},
			Init{s, "{}"},
			VaultPut{pick("value", 20) + "/a", Sealed(fresh)}, VaultPut{pick("value", 20), Sealed(fresh)}, VaultRemove{pick("value", 20)},
			VaultLock{pick("lock", 2), id(pick("node", 3)), time.Duration(1+r.IntN(300)) * time.Second}, VaultUnlock{pick("lock", 2), id(pick("node", 3))},
			SelfTestBegin{key(pick("test", 12))}, SelfTestEnd{key(pick("test", 12))},
			PolicyTryV1{"// tried " + fresh + "\n{}", c.View().Policy().Version, "", time.Duration(r.IntN(300)) * time.Second},
			PolicyApply{"// resources " + fresh + "\n{}", c.View().Policy().Version, "", time.Duration(max(0, r.IntN(300)-150)) * time.Second, resourceNames(r)},
			PolicyConfirm{c.View().Policy().Version - uint64(r.IntN(2))}, PolicyRevert{c.View().Policy().Version, r.IntN(2) == 0},
		}
		// What people do most.
		choose = append(choose, Failure{u}, Failure{u}, Failure{u})
		for range 4 {
			choose = append(choose, Login{d, c.step(int64(r.IntN(3) - 1))}, EnrolBegin{open, hash(pick("browser", 2)), Sealed("secret " + fresh)},
				EnrolFinish{open, hash(pick("browser", 2)), c.step(int64(r.IntN(3) - 1)), added}, UserAdd{u, user, &inv})
		}
		if r.IntN(50) == 0 {
			length, mtu, masquerade := time.Duration(1+r.IntN(20))*time.Hour, uint16(1200+r.IntN(300)), r.IntN(2) == 0
			routes := []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(r.IntN(256)), 0}), 24)}
			choose = []Body{ConfigureV1{Session: &length, Routes: &routes}, Configure{Session: &length, MTU: &mtu, Masquerade: &masquerade}, SessionEnd{}, TimeReset{}}
		}
		request := ID{}
		if r.IntN(4) > 0 {
			request = id(pick("request", 1000))
		}
		actor := "somebody"
		if r.IntN(10) == 0 {
			actor = "somebody else"
		}
		body := choose[r.IntN(len(choose))]
		if i == n/2 {
			body = Upgrade{Level: newestLevel}
		}
		base := uint64(0)
		if c.View().Level() >= levelAnswers {
			base = c.index - uint64(r.IntN(20))
		}
		c.command(Command{request, base, c.now, actor, body})
	}
	return c.log
}

// resourceNames are some of few.
func resourceNames(r *rand.Rand) (names []string) {
	for i := range 12 {
		if r.IntN(3) == 0 {
			names = append(names, fmt.Sprintf("r%02d", i))
		}
	}
	return names
}

func TestReplicasAgree(t *testing.T) {
	for seed := range uint64(2) {
		log := randomLog(t, seed, 4000)
		// One applies all; one is restored from a snapshot every now and then.
		a, b := New(), New()
		used, refusals := map[kind]int{}, 0
		for i, raw := range log {
			ra, err := a.Apply(uint64(i+1), raw)
			if err != nil {
				t.Fatal(err)
			}
			rb, err := b.Apply(uint64(i+1), raw)
			if err != nil {
				t.Fatal(err)
			}
			if msg(ra.Err) != msg(rb.Err) || ra.Count != rb.Count || (ra.Device == nil) != (rb.Device == nil) || (ra.Session == nil) != (rb.Session == nil) {
				t.Fatalf("index %d: answers differ: %+v and %+v", i+1, ra, rb)
			}
			c, err := Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			if used[c.Body.kind()]++; ra.Err != nil {
				refusals++
			}
			if i%701 == 0 {
				sa, sb := snapshotOf(t, a), snapshotOf(t, b)
				if !bytes.Equal(sa, sb) {
					t.Fatalf("index %d: replicas differ", i+1)
				}
				b = New()
				if err := b.Restore(bytes.NewReader(sa)); err != nil {
					t.Fatal(err)
				}
				checkInvariants(t, a.View())
			}
		}
		if !bytes.Equal(snapshotOf(t, a), snapshotOf(t, b)) {
			t.Fatal("replicas differ at the end")
		}
		if len(used) != len(kinds) || refusals < 100 || refusals > len(log)*9/10 {
			t.Errorf("the log is poor: %d kinds, %d refusals of %d", len(used), refusals, len(log))
		}
	}
}

func msg(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func snapshotOf(t testing.TB, s *State) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := s.Snapshot().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// checkInvariants looks at a whole state.
func checkInvariants(t *testing.T, v *View) {
	t.Helper()
	s, _ := v.Settings()
	if w := v.Pending(); w != nil && (w.Version != v.Policy().Version || v.PolicyVersion(w.Back) == nil) {
		t.Errorf("what waits for a confirmation is %+v, and version %d is in force", w, v.Policy().Version)
	}
	addrs, keys := map[netip.Addr]bool{}, map[Key]bool{}
	users, devices, sessions := 0, 0, 0
	for range v.Users() {
		users++
	}
	for d := range v.Devices() {
		devices++
		if v.User(d.User) == nil {
			t.Errorf("device %s has no owner", d.Name)
		}
		if keys[d.PublicKey] || v.Retired(d.PublicKey) {
			t.Errorf("the key of %s is used twice", d.Name)
		}
		keys[d.PublicKey] = true
		if len(d.Addrs) != len(s.Network) {
			t.Errorf("device %s has %v", d.Name, d.Addrs)
		}
		for i, a := range d.Addrs {
			if addrs[a] || !s.Network[i].Contains(a) || a == s.GatewayAddrs()[i] || v.DeviceByAddr(a) != d {
				t.Errorf("address %s of %s is used twice or cannot be", a, d.Name)
			}
			addrs[a] = true
		}
	}
	for x := range v.SelfTests() {
		if keys[x.PublicKey] || len(x.Addrs) != len(s.Network) {
			t.Errorf("the key of a self-test is used twice, or it has %v", x.Addrs)
		}
		keys[x.PublicKey] = true
		for i, a := range x.Addrs {
			if addrs[a] || !s.Network[i].Contains(a) || a == s.GatewayAddrs()[i] || v.DeviceByAddr(a) != nil {
				t.Errorf("address %s of a self-test is used twice or cannot be", a)
			}
			addrs[a] = true
		}
	}
	for x := range v.Sessions() {
		sessions++
		d := v.Device(x.Device)
		if d == nil || d.Disabled || v.User(x.User) == nil || v.User(x.User).Disabled || d.User != x.User || v.Session(x.Device) != x {
			t.Errorf("session %+v should not be", x)
		}
	}
	if u, d, n := v.Counts(); u != users || d != devices || n != sessions {
		t.Errorf("counts are %d %d %d, want %d %d %d", u, d, n, users, devices, sessions)
	}
}

// The log of every released version, and the snapshot it led to, are kept. A change of
// what an old command means, or of how it is written, fails here.
func TestOldLogsReplay(t *testing.T) {
	const current = "format5"
	dir := "testdata"
	if *update {
		log := randomLog(t, 42, 1200)
		var b bytes.Buffer
		enc := encMode.NewEncoder(&b)
		s := New()
		for i, raw := range log {
			if err := enc.Encode(raw); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Apply(uint64(i+1), raw); err != nil {
				t.Fatal(err)
			}
		}
		for name, data := range map[string][]byte{current + ".log": b.Bytes(), current + ".snapshot": snapshotOf(t, s)} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no recorded log in %s: %v", dir, err)
	}
	for _, name := range logs {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		want, err := os.ReadFile(strings.TrimSuffix(name, ".log") + ".snapshot")
		if err != nil {
			t.Fatal(err)
		}
		s, dec := New(), cbor.NewDecoder(f)
		for i := uint64(1); ; i++ {
			var raw []byte
			if err := dec.Decode(&raw); err != nil {
				break
			}
			if _, err := s.Apply(i, raw); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if !bytes.Equal(snapshotOf(t, s), want) {
			t.Errorf("%s: the log leads to another state than when it was recorded", name)
		}
		restored := New()
		if err := restored.Restore(bytes.NewReader(want)); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !bytes.Equal(snapshotOf(t, restored), want) {
			t.Errorf("%s: restored it writes another snapshot", name)
		}
		// A node that was there and one that read the snapshot go on as one.
		for i, b := range []Body{Upgrade{Level: newestLevel}, Expire{}, SessionEnd{}} {
			for _, x := range []*State{s, restored} {
				v := x.View()
				request := id(number("after", i))
				if _, err := x.Apply(v.Index()+1, encoded(t, Command{Request: request, Base: v.Request(request).Base, At: v.Time(), Actor: "test", Body: b})); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			if !bytes.Equal(snapshotOf(t, s), snapshotOf(t, restored)) {
				t.Errorf("%s: after %T the two differ", name, b)
			}
		}
		if l := s.View().Level(); l != newestLevel {
			t.Errorf("%s: it is raised to level %d", name, l)
		}
	}
}

// Apply must give the same on every node: nothing here may read a clock, draw a random
// number, do cryptography, or go through a map in its own order.
func TestNothingHereIsLeftToChance(t *testing.T) {
	files := token.NewFileSet()
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, name := range sources {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		looked++
		for _, imp := range f.Imports {
			path, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			for _, banned := range []string{"crypto", "math/rand", "os", "net", "runtime", "unsafe", "context"} {
				// ParseKey alone tries a key exchange, before anything is proposed.
				if name == "key.go" && path == "crypto/ecdh" {
					continue
				}
				if path != "net/netip" && (path == banned || strings.HasPrefix(path, banned+"/")) {
					t.Errorf("%s imports %s", name, path)
				}
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" {
					switch n.Sel.Name {
					case "Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep", "Local":
						t.Errorf("%s: time.%s", files.Position(n.Pos()), n.Sel.Name)
					}
				}
			case *ast.GoStmt, *ast.SelectStmt:
				t.Errorf("%s: a goroutine or select", files.Position(n.Pos()))
			case *ast.CallExpr:
				if x, ok := n.Fun.(*ast.Ident); ok && (x.Name == "ParseKey" || x.Name == "usable") && name != "key.go" {
					t.Errorf("%s: %s does cryptography", files.Position(n.Pos()), x.Name)
				}
			case *ast.MapType:
				// Two maps are only looked up in, one is made for readers; schema.go's are
				// go-memdb's own form.
				if name != "schema.go" && name != "subject.go" && name != "kinds.go" && name != "touched.go" {
					t.Errorf("%s: a map: its order is left to chance", files.Position(n.Pos()))
				}
			}
			return true
		})
	}
	if looked < 10 {
		t.Errorf("looked at %d files", looked)
	}
}
