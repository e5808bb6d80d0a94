package control

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"vpnd/internal/control/controltest"
	"vpnd/peers"
)

// Keys that an earlier vpnd let in under a second spelling are found, said and forgotten
// once they are replaced.
func TestSecondSpellingsAreSaid(t *testing.T) {
	st := controltest.NewStore()
	propose := func(b peers.Body) {
		t.Helper()
		if _, r, err := st.Propose(t.Context(), peers.Command{At: time.Now().UTC().Round(0), Actor: "test", Body: b}); err != nil || r.Err != nil {
			t.Fatal(err, r.Err)
		}
	}
	now := time.Now().UTC().Round(0)
	sealer, err := NewSealer(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	var log controltest.Log
	s := New(Config{Store: st, Log: log.Logger()})
	if got := s.spellings(s.View()); len(got) != 0 {
		t.Fatal(got)
	}
	set, err := newSettings(sealer, BootstrapConfig{Endpoint: "vpn.example.com:51820"}, now)
	if err != nil {
		t.Fatal(err)
	}
	propose(peers.Init{Settings: set, Policy: "{}"})
	alice := newID()
	propose(peers.UserAdd{ID: alice, Name: "alice"})
	odd := peers.NewDevice{ID: newID(), Name: "odd", PublicKey: peers.Key{1: 7, 31: 0x80}, PresharedKey: peers.Sealed("psk")}
	propose(peers.DeviceAdd{User: alice, Device: odd})
	propose(peers.DeviceAdd{User: alice, Device: peers.NewDevice{ID: newID(), Name: "plain", PublicKey: peers.Key{1: 8}, PresharedKey: peers.Sealed("psk")}})
	up, _ := st.State().View().Upgrade("")
	propose(up)
	s.findSpellings(t.Context())
	if got := strings.Join(s.spellings(s.View()), " "); got != "alice/odd" || strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), "vpnctl device rotate alice/odd") {
		t.Fatalf("found %q, said %q", got, log.String())
	}
	propose(peers.DeviceRotate{Device: odd.ID, PublicKey: peers.Key{1: 9}, PresharedKey: peers.Sealed("psk")})
	if got := s.spellings(s.View()); len(got) != 0 {
		t.Error(got)
	}
}
