package api

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"vpnd/internal/locals"

	"github.com/pquerna/otp/totp"

	"vpnd/internal/control"
	"vpnd/internal/control/controltest"
	"vpnd/peers"
)

const otherPolicy = `{"grants": [{"src": ["alice"], "dst": ["app"], "ip": ["tcp:80"], "mfa": "2h"}]}`

// world is the edge on a bootstrapped Service with fakes below it.
type world struct {
	*control.Service
	edge    *Edge
	t       testing.TB
	store   *controltest.Store
	gateway *controltest.Gateway
	sealer  *control.Sealer
	key     []byte
	log     *controltest.Log
	offset  atomic.Int64 // of the wall clock, in ns
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, store: controltest.NewStore(), gateway: &controltest.Gateway{}, key: bytes.Repeat([]byte{7}, 32), log: &controltest.Log{}}
	var err error
	if w.sealer, err = control.NewSealer(w.key); err != nil {
		t.Fatal(err)
	}
	if first, err := control.Bootstrap(t.Context(), w.store, w.sealer, control.BootstrapConfig{Endpoint: "vpn.example.com:51820", Now: w.now}); err != nil || !first {
		t.Fatalf("Bootstrap = %v, %v", first, err)
	}
	list, err := locals.Open(filepath.Join(t.TempDir(), "local-targets"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Service = control.New(control.Config{Store: w.store, Gateway: w.gateway, Sealer: w.sealer, Now: w.now, Version: "test", Log: w.log.Logger(), Locals: list})
	w.edge = New(w.Service, w.log.Logger())
	return w
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) }

// nextPeriod moves the clock on by two periods of a code: the one shown then is new.
func (w *world) nextPeriod() { w.offset.Add(int64(time.Minute)) }

// running runs the housekeeping and the health checks.
func (w *world) running() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{}, 2)
	for _, run := range []func(context.Context){w.Run, w.edge.Run} {
		go func() { run(ctx); done <- struct{}{} }()
	}
	return func() { cancel(); <-done; <-done }
}

func (w *world) codeNow(secret string) string {
	w.t.Helper()
	c, err := totp.GenerateCode(secret, w.now())
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// wrongCode is six digits that are right at no time near now.
func (w *world) wrongCode(secret string) string {
	w.t.Helper()
	for n := 0; ; n++ {
		c, right := fmt.Sprintf("%06d", n), false
		for s := -5; s <= 5; s++ {
			code, err := totp.GenerateCode(secret, w.now().Add(time.Duration(s)*30*time.Second))
			if err != nil {
				w.t.Fatal(err)
			}
			right = right || code == c
		}
		if !right {
			return c
		}
	}
}

func publicKey(t testing.TB) string {
	t.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(k.PublicKey().Bytes())
}

// person is somebody enrolled.
type person struct {
	name, secret, token, key string
	addr                     netip.Addr
	done                     control.Finished
}

// invited adds a user and returns her invitation's token.
func (w *world) invited(name string) string {
	w.t.Helper()
	_, inv, err := w.AddUser(w.t.Context(), name, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	_, token, _ := strings.Cut(inv.Link, "/enroll#")
	return token
}

// enrolled adds a user and takes her through the whole enrolment.
func (w *world) enrolled(name string) person {
	w.t.Helper()
	ctx := w.t.Context()
	p := person{name: name, token: w.invited(name), key: publicKey(w.t)}
	e, err := w.EnrolBegin(ctx, p.token, "browser of "+name)
	if err != nil {
		w.t.Fatal(err)
	}
	p.secret = e.Secret
	p.done, err = w.EnrolFinish(ctx, control.FinishRequest{
		Token: p.token, Browser: "browser of " + name, Code: w.codeNow(p.secret), Device: "phone", PublicKey: p.key,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	p.addr = p.done.Addresses[0]
	return p
}

func (w *world) signedIn(name string) person {
	w.t.Helper()
	p := w.enrolled(name)
	w.nextPeriod()
	if _, err := w.SignIn(w.t.Context(), p.addr, w.codeNow(p.secret)); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// crowd adds users who are signed in on a device each, by commands alone: no key is made
// and no code is checked.
func (w *world) crowd(n int) {
	w.t.Helper()
	propose := func(b peers.Body) {
		if _, res, err := w.store.Propose(context.Background(), peers.Command{At: w.now(), Actor: "test", Body: b}); err != nil || res.Err != nil {
			w.t.Fatal(err, res.Err)
		}
	}
	newID := func() (id peers.ID) { rand.Read(id[:]); return id }
	step := w.now().Unix() / 30
	for i := range n {
		d := peers.NewDevice{ID: newID(), Name: "phone", PresharedKey: peers.Sealed("sealed")}
		copy(d.PublicKey[:], fmt.Appendf(nil, "key %d", i))
		inv := peers.NewInvitation{ID: newID(), Expires: w.now().Add(time.Hour)}
		copy(inv.Hash[:], d.PublicKey[:])
		propose(peers.UserAdd{ID: newID(), Name: fmt.Sprintf("user%d", i), Invitation: &inv})
		propose(peers.EnrolBegin{Invitation: inv.ID, Browser: inv.Hash, Secret: peers.Sealed("sealed")})
		propose(peers.EnrolFinish{Invitation: inv.ID, Browser: inv.Hash, Step: step - 1, Device: d})
		propose(peers.Login{Device: d.ID, Step: step})
	}
}

func second[T any](_ T, err error) error { return err }

// wantCode fails unless err is a refusal of this kind.
func wantCode(t testing.TB, err error, kind string) *control.Error {
	t.Helper()
	var e *control.Error
	if !errors.As(err, &e) || e.Kind() != kind {
		t.Fatalf("error %v (%T), want one of kind %q", err, err, kind)
	}
	return e
}
