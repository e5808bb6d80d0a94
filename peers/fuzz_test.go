package peers

import (
	"bytes"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// parts are a snapshot's items: the header, and the tables' objects.
type parts struct {
	header header
	items  []cbor.RawMessage
}

func split(t testing.TB, snapshot []byte) (p parts) {
	t.Helper()
	dec := decMode.NewDecoder(bytes.NewReader(snapshot))
	for first := true; ; first = false {
		var raw cbor.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return p
		}
		if !first {
			p.items = append(p.items, raw)
		} else if err := decMode.Unmarshal(raw, &p.header); err != nil {
			t.Fatal(err)
		}
	}
}

// counts are the header's, in the order of the tables.
func (h *header) counts() []*uint64 {
	return []*uint64{&h.Users, &h.Devices, &h.Invitations, &h.Sessions, &h.Policies, &h.Audit, &h.Retired, &h.Released, &h.Remembered, &h.Vault, &h.VaultLocks, &h.Places}
}

// edit makes another snapshot: each four bytes are one change of an item. The header's
// counts go with what is taken out or put in twice, so that most of what comes out can be
// read as CBOR, and the objects are what is wrong.
func (p parts) edit(edits []byte) []byte {
	h := p.header
	items := make([]cbor.RawMessage, len(p.items))
	copy(items, p.items)
	for ; len(edits) >= 4 && len(items) > 0; edits = edits[4:] {
		i := int(edits[1]) % len(items)
		table, last := 0, uint64(0)
		counts := h.counts()
		for ; table < len(counts)-1; table++ {
			if last += *counts[table]; uint64(i) < last {
				break
			}
		}
		switch edits[0] % 8 {
		case 0:
			items = append(items[:i:i], items[i+1:]...)
			*counts[table]--
		case 1:
			items = append(items[:i:i], append([]cbor.RawMessage{items[i]}, items[i:]...)...)
			*counts[table]++
		case 2:
			*counts[int(edits[2])%len(counts)] += uint64(edits[3])
		case 3:
			h.Serial, h.NextHost, h.Policy = h.Serial^uint32(edits[2]), h.NextHost^uint32(edits[3]), h.Policy^uint64(edits[2]&3)
		case 4:
			h.Requests, h.Forgot, h.Time = h.Requests^uint64(edits[2]), h.Forgot^uint64(edits[3]), h.Time^stamp(edits[2])<<30
		default:
			item := bytes.Clone(items[i])
			item[(int(edits[0])>>3<<8|int(edits[2]))%len(item)] ^= edits[3]
			items[i] = item
		}
	}
	var out bytes.Buffer
	enc := encMode.NewEncoder(&out)
	if enc.Encode(h) != nil {
		return nil
	}
	for _, item := range items {
		out.Write(item)
	}
	return out.Bytes()
}

// Whatever a snapshot says, it is refused or it is a state: that can be asked, changed,
// written and read again as it was.
func FuzzRestore(f *testing.F) {
	c := emptyCluster(f)
	must(c, Init{settings("192.0.2.0/28", "fd00:77::/64"), "{}"})
	enrol(c, "alice", "laptop")
	enrol(c, "bob", "phone")
	open := invitation("carol")
	must(c, UserAdd{id("carol"), "carol", &open})
	must(c, EnrolBegin{open.ID, hash("browser"), Sealed("pending")})
	c.now = c.now.Add(time.Minute)
	c.ask("login", Login{id("alice/laptop"), c.step(0)})
	c.ask("refused", Login{id("alice/laptop"), c.step(0)})
	must(c, DeviceRemove{id("bob/phone")})
	c.ask("try", PolicyTryV1{"// two\n{}", 1, "note", time.Minute})
	former := split(f, c.snapshot())
	must(c, Upgrade{Level: newestLevel})
	mtu := uint16(1400)
	c.ask("configure", Configure{MTU: &mtu})
	must(c, VaultPut{"acme/a", Sealed("one")})
	must(c, VaultPut{"acme/b", Sealed("two")})
	must(c, VaultLock{"order", id("node"), time.Minute})
	must(c, SelfTestBegin{key("test")})
	must(c, PolicyConfirm{2})
	must(c, PolicyApply{Text: "{}", Base: 2, Resources: []string{"db", "wiki"}})
	must(c, PolicyApply{Text: "{ }", Base: 3, Note: "note", For: time.Minute, Resources: []string{"db"}})
	now := split(f, c.snapshot())
	if len(now.items) < 20 || !bytes.Equal(now.edit(nil), c.snapshot()) {
		f.Fatal("a snapshot is not put together as it was taken apart")
	}
	for i := range byte(8) {
		f.Add(false, []byte{i, 3 * i, 20, 1})
		f.Add(true, []byte{i + 8, 5 * i, 40, 0x80, i, i, i, i})
	}
	f.Fuzz(func(t *testing.T, old bool, edits []byte) {
		p := now
		if old {
			p = former
		}
		if len(edits) > 64 {
			return
		}
		s := New()
		if s.Restore(bytes.NewReader(p.edit(edits))) != nil {
			return
		}
		v := s.View()
		for d := range v.Devices() {
			v.DeviceByAddr(d.Addrs[0])
			v.Subject(d)
		}
		for range v.SelfTests() {
		}
		v.Answer(id("login"))
		first := snapshotOf(t, s)
		again := New()
		if err := again.Restore(bytes.NewReader(first)); err != nil {
			t.Fatalf("what was restored cannot be written and restored: %v", err)
		}
		if !bytes.Equal(snapshotOf(t, again), first) {
			t.Fatal("restored again it differs")
		}
		for i, b := range []Body{
			Upgrade{Level: newestLevel}, Login{id("alice/laptop"), c.step(9)}, DeviceAdd{id("alice"), device("alice", "new")},
			PolicyRevert{2, true}, UserRemove{id("alice")}, SelfTestBegin{key("another")}, SelfTestEnd{key("test")}, Expire{}, VaultLock{"order", id("other"), time.Minute},
			VaultPut{"acme/a", Sealed("three")}, VaultRemove{"acme"}, TimeReset{}, UserRemove{id("bob")},
		} {
			for _, s := range []*State{s, again} {
				if _, err := s.Apply(s.View().Index()+1, encoded(t, Command{Request: id(number("fuzz", i)), Base: s.View().Request(ID{}).Base, At: c.now, Actor: "test", Body: b})); err != nil {
					t.Fatalf("%T: %v", b, err)
				}
			}
		}
		if !bytes.Equal(snapshotOf(t, again), snapshotOf(t, s)) {
			t.Fatal("changed in the same way the two differ")
		}
	})
}
