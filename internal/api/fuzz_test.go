package api

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"vpnd/internal/control"
	"vpnd/internal/words"
	vpnv1 "vpnd/proto/vpn/v1"
)

// FuzzBodies gives use cases what a browser or a client may send. Nothing but a good
// request is accepted, every refusal has a word and is written for people, and none is
// an internal error or repeats the token.
func FuzzBodies(f *testing.F) {
	f.Add("token", "browser", "123456", "phone", "key", "user", "10.77.0.2")
	f.Add(strings.Repeat("A", 43), "b", "000000", "../../etc", strings.Repeat("A", 43)+"=", "a\nb", "::ffff:10.77.0.2")
	f.Add(strings.Repeat("é", 22), "", "１２３４５６", "\x1b[2J", strings.Repeat("=", 44), "alice/", "fe80::1%eth0")
	w := newWorld(f)
	p := w.enrolled("alice")
	token := w.invited("bob")
	if _, err := w.EnrolBegin(f.Context(), token, "b"); err != nil {
		f.Fatal(err)
	}
	users, devices, who := userServer{Edge: w.edge}, deviceServer{Edge: w.edge}, whoIsServer{Edge: w.edge}
	f.Fuzz(func(t *testing.T, tok, browser, code, device, key, user, addr string) {
		ctx := t.Context()
		a, _ := netip.ParseAddr(addr)
		_, e1 := w.EnrolBegin(ctx, tok, browser)
		_, e2 := w.EnrolFinish(ctx, control.FinishRequest{Token: tok, Browser: browser, Code: code, Device: device, PublicKey: key})
		_, e3 := w.EnrolFinish(ctx, control.FinishRequest{Token: token, Browser: browser, Code: "x", Device: device, PublicKey: key})
		_, e4 := w.EnrolStatus(ctx, tok, key)
		_, e5 := w.EnrolStatus(ctx, token, key)
		_, e6 := w.SignIn(ctx, a, code)
		_, e7 := users.GetUser(ctx, &vpnv1.GetUserRequest{Name: user})
		_, e8 := devices.AddDevice(ctx, &vpnv1.AddDeviceRequest{User: "alice", Name: device, PublicKey: "x" + key, Tags: []string{user}})
		_, e9 := devices.RemoveDevice(ctx, &vpnv1.RemoveDeviceRequest{Name: user + "/" + device})
		_, e10 := who.WhoIs(ctx, &vpnv1.WhoIsRequest{Address: addr})
		if e3 == nil {
			t.Error("enrolled with a code that is none")
		}
		for i, err := range []error{e1, e2, e3, e4, e5, e6, e7, e8, e9, e10} {
			if err == nil {
				continue
			}
			var e *control.Error
			if !errors.As(err, &e) || e.Code == "" || e.Kind() == control.KindInternal || statuses[e.Kind()] == 0 {
				t.Errorf("%d: %v (%T)", i+1, err, err)
				continue
			}
			said := words.English().Refusal(e.Code, e.Values())
			if !utf8.ValidString(said) || strings.ContainsAny(said, "\x00\x1b\n\r") || strings.Contains(said, token) {
				t.Errorf("%d: the message %q is not for people", i+1, said)
			}
			if _, err := json.Marshal(said); err != nil {
				t.Errorf("%d: %v", i+1, err)
			}
		}
		if w.View().DeviceByAddr(p.addr) == nil && addr != p.addr.String() && user != "alice" {
			t.Error("a device is gone")
		}
	})
}
