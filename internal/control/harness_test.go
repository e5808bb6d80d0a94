package control

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"vpnd/internal/control/controltest"
)

// world is a bootstrapped Service with fakes below it, and a wire between it and its Leader.
type world struct {
	*Service
	leader  *Leader
	t       testing.TB
	store   *controltest.Store
	gateway *controltest.Gateway
	key     []byte
	log     *controltest.Log
	offset  atomic.Int64 // of the wall clock, in ns
}

// newWorld makes one, in this network or in the usual one.
func newWorld(t testing.TB, network ...netip.Prefix) *world {
	t.Helper()
	w := &world{t: t, store: controltest.NewStore(), gateway: &controltest.Gateway{}, key: bytes.Repeat([]byte{7}, 32), log: &controltest.Log{}}
	sealer, err := NewSealer(w.key)
	if err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) }
	first, err := Bootstrap(t.Context(), w.store, sealer, BootstrapConfig{Endpoint: "vpn.example.com:51820", Network: network, Now: clock})
	if err != nil || !first {
		t.Fatalf("Bootstrap = %v, %v", first, err)
	}
	c := Config{Store: w.store, Gateway: w.gateway, Sealer: sealer, Now: clock, Version: "test", Log: w.log.Logger()}
	w.leader = NewLeader(c)
	c.Decider = wire{t, w.leader}
	w.Service = New(c)
	return w
}

// advance moves the wall clock.
func (w *world) advance(d time.Duration) { w.offset.Add(int64(d)) }

// nextPeriod moves the clock to the start of the next TOTP step but one: whatever was
// accepted before, the code shown then is new.
func (w *world) nextPeriod() {
	now := w.now()
	w.advance(totpStart(totpStep(now) + 2).Sub(now))
}

func (w *world) codeNow(secret string) string {
	w.t.Helper()
	c, err := totpCode(secret, totpStep(w.now()))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// wrongCode is six digits that are right for no step near now.
func (w *world) wrongCode(secret string) string {
	w.t.Helper()
	for n := 0; ; n++ {
		c := fmt.Sprintf("%06d", n)
		right := false
		for s := totpStep(w.now()) - 5; s <= totpStep(w.now())+5; s++ {
			code, err := totpCode(secret, s)
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
	done                     Finished
}

func tokenOf(t testing.TB, i Invite) string {
	t.Helper()
	u, err := url.Parse(i.Link)
	if err != nil || u.Path != "/enroll" || len(u.Fragment) < 22 {
		t.Fatalf("link %q: %v", i.Link, err)
	}
	return u.Fragment
}

// enrolled adds a user and takes her through the whole enrolment.
func (w *world) enrolled(name string) person {
	w.t.Helper()
	ctx := w.t.Context()
	_, inv, err := w.AddUser(ctx, name, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	p := person{name: name, token: tokenOf(w.t, inv), key: publicKey(w.t)}
	e, err := w.EnrolBegin(ctx, p.token, "browser of "+name)
	if err != nil {
		w.t.Fatal(err)
	}
	p.secret = e.Secret
	p.done, err = w.EnrolFinish(ctx, FinishRequest{
		Token: p.token, Browser: "browser of " + name, Code: w.codeNow(p.secret), Device: "phone", PublicKey: p.key,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	p.addr = p.done.Addresses[0]
	return p
}

// wantCode fails unless err is an Error of this kind.
func wantCode(t testing.TB, err error, kind string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T), want one of kind %q", err, err, kind)
	}
	if e.Kind() != kind {
		t.Fatalf("kind %q (%v), want %q", e.Kind(), e, kind)
	}
	return e
}
