package control

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vpnd/internal/control/controltest"
	"vpnd/internal/store"
)

// A code stays used, a lock and a session stay, after a restart from the log and from a
// snapshot; and the data folder holds no secret in clear.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	sealer, err := NewSealer(bytes.Repeat([]byte{3}, 32))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, gateway: &controltest.Gateway{}, log: &controltest.Log{}}
	clock := func() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) }
	var st *store.Store
	open := func(first bool) {
		t.Helper()
		st, err = store.Open(t.Context(), store.Config{Dir: dir, Log: w.log.Logger(), Fatal: func(err error) { t.Error(err) }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := st.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		got, err := Bootstrap(t.Context(), st, sealer, BootstrapConfig{Endpoint: "vpn.example.com:51820", Now: clock})
		if err != nil || got != first {
			t.Fatalf("Bootstrap = %v, %v; want %v", got, err, first)
		}
		w.Service = New(Config{Store: st, Gateway: w.gateway, Sealer: sealer, Now: clock, Log: w.log.Logger()})
	}
	open(true)
	t.Cleanup(func() { st.Close() })
	alice, bob := w.enrolled("alice"), w.enrolled("bob")
	w.nextPeriod()
	code := w.codeNow(alice.secret)
	in, err := w.SignIn(t.Context(), alice.addr, code)
	if err != nil {
		t.Fatal(err)
	}
	bad := w.wrongCode(bob.secret)
	for range 5 {
		wantCode(t, second(w.SignIn(t.Context(), bob.addr, bad)), KindCodeInvalid)
	}
	for _, how := range []string{"the log", "a snapshot"} {
		if how == "a snapshot" {
			if err := st.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		open(false)
		if e := second(w.SignIn(t.Context(), alice.addr, code)); e == nil {
			t.Errorf("from %s: a used code was accepted", how)
		} else {
			wantCode(t, e, KindCodeUsed)
		}
		wantCode(t, second(w.SignIn(t.Context(), bob.addr, w.codeNow(bob.secret))), KindLocked)
		if now, err := w.Session(t.Context(), alice.addr); err != nil || !now.Active || !now.Expires.Equal(in.Expires) {
			t.Errorf("from %s: session %v until %v, %v; want until %v", how, now.Active, now.Expires, err, in.Expires)
		}
	}
	var c controltest.Canaries
	for _, p := range []person{alice, bob} {
		raw, err := totpEncoding.DecodeString(p.secret)
		if err != nil {
			t.Fatal(err)
		}
		c.Plant("the TOTP secret of "+p.name, raw)
		c.Plant("the token of "+p.name, []byte(p.token))
	}
	set, _ := w.View().Settings()
	private, err := sealer.GatewayKey(set)
	if err != nil {
		t.Fatal(err)
	}
	c.Plant("the gateway's key", private[:])
	files := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if files += len(b); c.Find(b) != "" {
			t.Errorf("%s holds %s", path, c.Find(b))
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Errorf("%d bytes looked at, %v", files, err)
	}
}
