package peers

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// commands has every kind, with every field filled.
func commands() []Body {
	text, session, off, mtu := "x.example.com:1", time.Hour, false, uint16(1400)
	routes := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	dns := []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")}
	s := settings()
	s.Routes, s.DNS = routes, dns
	inv := invitation("alice")
	d := device("alice", "laptop")
	d.Tags = []string{"tag:a", "tag:b"}
	return []Body{
		Init{s, "{}"}, ConfigureV1{&text, &text, &routes, &dns, &session}, Configure{&text, &text, &routes, &dns, &session, &off, &mtu}, UserAdd{id("alice"), "alice", &inv},
		UserEnable{id("alice"), true}, UserRemove{id("alice")}, UserUnlock{id("alice")}, TOTPReset{id("alice")},
		InvitationAdd{id("alice"), inv}, InvitationRemove{inv.ID}, EnrolBegin{inv.ID, hash("b"), Sealed("secret")},
		EnrolFinish{inv.ID, hash("b"), 59_000_000, d}, DeviceAdd{id("alice"), d}, DeviceEnable{d.ID, true},
		DeviceRemove{d.ID}, DeviceRotate{d.ID, key("new"), Sealed("psk")}, Login{d.ID, 59_000_001},
		Failure{id("alice")}, SessionEnd{d.ID, id("alice")}, Expire{}, PolicyApplyV1{"{}", 1, "note"},
		Note{"a", "b", "c"}, TimeReset{}, PolicyTryV1{"{}", 1, "note", time.Minute}, PolicyConfirm{2}, PolicyRevert{2, true}, Upgrade{Level: newestLevel},
		VaultPut{"acme/a.example", Sealed("value")}, VaultRemove{"acme"}, VaultLock{"order", id("node"), time.Minute}, VaultUnlock{"order", id("node")},
		SelfTestBegin{key("test")}, SelfTestEnd{key("test")},
		PolicyApply{"{}", 1, "note", time.Minute, []string{"db", "wiki"}},
	}
}

func TestEveryKindSurvivesEncoding(t *testing.T) {
	seen := map[kind]bool{}
	for _, b := range commands() {
		seen[b.kind()] = true
		want := Command{id("request"), 7, start, "alice", b}
		raw, err := Encode(want)
		if err != nil {
			t.Fatalf("%T: %v", b, err)
		}
		got, err := Decode(raw)
		if err != nil {
			t.Fatalf("%T: %v", b, err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
			t.Errorf("%T: %s", b, d)
		}
		if again, err := Encode(got); err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%T: encoded again it differs: %v", b, err)
		}
	}
	for k := range kinds {
		if !seen[k] {
			t.Errorf("kind %d is not tried", k)
		}
	}
	if n := int(kindPolicyApply); len(kinds) != n {
		t.Errorf("%d kinds can be decoded of %d", len(kinds), n)
	}
}

func TestZeroFieldsSurviveEncoding(t *testing.T) {
	var none []netip.Prefix
	var noDNS []netip.Addr
	empty := ""
	c, err := Decode(encoded(t, Command{Body: Configure{Endpoint: &empty, Routes: &none, DNS: &noDNS}}))
	if err != nil {
		t.Fatal(err)
	}
	b := c.Body.(Configure)
	if b.Endpoint == nil || b.Routes == nil || len(*b.Routes) != 0 || b.DNS == nil || b.URL != nil || b.Session != nil {
		t.Errorf("an empty list or text is taken for a missing one: %+v", b)
	}
	if !c.At.IsZero() || !c.Request.IsZero() {
		t.Errorf("decoded %+v", c)
	}
}

func encoded(t testing.TB, c Command) []byte {
	t.Helper()
	b, err := Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeRefuses(t *testing.T) {
	good := encoded(t, Command{Request: id("r"), At: start, Actor: "alice", Body: UserEnable{id("alice"), true}})
	un := func(s string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const expire = "13" // kind 19 has an empty body
	for name, b := range map[string][]byte{
		"nothing":                nil,
		"half":                   good[:len(good)/2],
		"trailing bytes":         append(slices.Clone(good), 0),
		"twice":                  append(slices.Clone(good), good...),
		"no map":                 un("80"),
		"no body":                un("a1 01 " + expire),
		"null body":              un("a2 01 " + expire + " 05 f6"),
		"unknown envelope field": un("a3 01 " + expire + " 05 a0 07 00"),
		"unknown body field":     un("a2 01 " + expire + " 05 a1 01 00"),
		"text key":               un("a3 01 " + expire + " 05 a0 61 78 00"),
		"duplicate key":          un("a3 01 " + expire + " 01 " + expire + " 05 a0"),
		"keys out of order":      un("a2 05 a0 01 " + expire),
		"long integer":           un("a2 01 18 " + expire + " 05 a0"),
		"indefinite length":      un("bf 01 " + expire + " 05 a0 ff"),
		"default written":        un("a3 01 " + expire + " 03 00 05 a0"),
		"base of 0 written":      un("a3 01 " + expire + " 05 a0 06 00"),
		"float time":             un("a3 01 " + expire + " 03 f9 3c00 05 a0"),
		"tagged time":            un("a3 01 " + expire + " 03 c1 01 05 a0"),
		"short id":               un("a2 01 05 05 a1 01 41 01"),
		"bad UTF-8":              un("a3 01 " + expire + " 04 61 ff 05 a0"),
		"negative kind":          un("a2 01 20 05 a0"),
	} {
		if c, err := Decode(b); err == nil {
			t.Errorf("%s: decoded as %+v", name, c)
		}
	}
	if _, err := Decode(un("a2 01 " + expire + " 05 a0")); err != nil {
		t.Errorf("the shortest command: %v", err)
	}
	if _, err := Decode(un("a2 01 19 03e7 05 a0")); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("an unknown kind: %v", err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, c := range map[string]Command{
		"no body":   {},
		"bad UTF-8": {Actor: "\xff", Body: Expire{}},
		"far time":  {At: time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC), Body: Expire{}},
		"far end":   {Body: InvitationAdd{Invitation: NewInvitation{Expires: time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC)}}},
	} {
		if _, err := Encode(c); err == nil {
			t.Errorf("%s is encoded", name)
		}
	}
}

func TestApplyStopsAtWhatItCannotRead(t *testing.T) {
	c := newCluster(t)
	before := c.snapshot()
	if _, err := c.Apply(c.index+1, []byte{0xa2, 1, 0x19, 3, 0xe7, 5, 0xa0}); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("an unknown kind: %v", err)
	}
	if _, err := c.Apply(c.index, encoded(t, Command{Body: Expire{}})); err == nil {
		t.Error("an index was applied twice")
	}
	if !bytes.Equal(before, c.snapshot()) {
		t.Error("the state has changed")
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range commands() {
		f.Add(encoded(f, Command{id("request"), 7, start, "alice", b}))
	}
	c := newCluster(f)
	enrol(c, "alice", "laptop")
	snapshot := c.snapshot()
	f.Fuzz(func(t *testing.T, b []byte) {
		cmd, err := Decode(b)
		if err != nil {
			return
		}
		if again, err := Encode(cmd); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("decoded and encoded again it differs: %v", err)
		}
		// Whatever can be decoded can be applied: refused at worst, and the state can
		// still be written and read.
		s := New()
		if err := s.Restore(bytes.NewReader(snapshot)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Apply(s.View().Index()+1, b); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if _, err := s.Snapshot().WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		if err := New().Restore(&out); err != nil {
			t.Fatal(err)
		}
	})
}
