package main

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"vpnd/internal/control"
	"vpnd/internal/control/controltest"
	"vpnd/internal/dataplane"
	"vpnd/internal/logs"
	"vpnd/internal/reconcile"
	"vpnd/internal/store"
	vpnv1 "vpnd/proto/vpn/v1"
)

// leaderless is the store of a node that hears of no leader, until it leads itself.
type leaderless struct {
	*controltest.Store
	lead chan struct{}
}

func (l leaderless) CatchUp(context.Context, time.Duration) error { return store.ErrNoLeader }
func (l leaderless) Close() error                                 { return nil }
func (l leaderless) Health() store.Health                         { return store.Health{} }
func (l leaderless) Ready(ctx context.Context) error {
	select {
	case <-l.lead:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tunnelListener says that every connection comes from one device.
type tunnelListener struct {
	net.Listener
	from netip.Addr
}

type tunnelConn struct {
	net.Conn
	from netip.Addr
}

func (l tunnelListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return tunnelConn{c, l.from}, err
}

func (c tunnelConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.from, 1000))
}

// openingPlane keeps what it was told.
type openingPlane struct {
	brokenPlane
	told   chan dataplane.State
	tunnel net.Listener
}

func (p *openingPlane) Set(_ context.Context, s dataplane.State) error { p.told <- s; return nil }
func (p *openingPlane) Listen(context.Context) (net.Listener, error)   { return p.tunnel, nil }

func loopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// aliceSignedIn makes a cluster with one person, who is signed in, and then nobody leads.
func aliceSignedIn(t *testing.T, sealer *control.Sealer) (st leaderless, from netip.Addr, secret string) {
	t.Helper()
	ctx := t.Context()
	st = leaderless{controltest.NewStore(), make(chan struct{})}
	before := func() time.Time { return time.Now().Add(-time.Hour) }
	if _, err := control.Bootstrap(ctx, st, sealer, control.BootstrapConfig{Endpoint: "192.0.2.1:51820", URL: "https://vpn.example.org", Now: before}); err != nil {
		t.Fatal(err)
	}
	s := control.New(control.Config{Store: st, Gateway: &controltest.Gateway{}, Sealer: sealer, Now: before})
	_, inv, err := s.AddUser(ctx, "alice", 0)
	if err != nil {
		t.Fatal(err)
	}
	_, token, _ := strings.Cut(inv.Link, "#")
	e, err := s.EnrolBegin(ctx, token, "b")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	code := func(at time.Time) string {
		c, err := totp.GenerateCode(e.Secret, at)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	done, err := s.EnrolFinish(ctx, control.FinishRequest{Token: token, Browser: "b", Code: code(before()), Device: "phone",
		PublicKey: base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())})
	if err != nil {
		t.Fatal(err)
	}
	now := control.New(control.Config{Store: st, Gateway: &controltest.Gateway{}, Sealer: sealer})
	if _, err := now.SignIn(ctx, done.Addresses[0], code(time.Now())); err != nil {
		t.Fatal(err)
	}
	st.Follower.Store(true)
	return st, done.Addresses[0], e.Secret
}

// Without a leader vpnd starts, keeps sessions open, serves its pages and says who is
// calling; a sign-in is told that nobody can decide. What the flags ask for waits.
func TestStartsWithoutLeader(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	keyFile := filepath.Join(t.TempDir(), "sealing.key")
	if err := os.WriteFile(keyFile, []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sealer, err := control.NewSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	st, from, secret := aliceSignedIn(t, sealer)
	index := st.State().View().Index()

	plane := &openingPlane{told: make(chan dataplane.State, 9), tunnel: tunnelListener{loopback(t), from}}
	out := &controltest.Log{}
	run := filepath.Join(t.TempDir(), "run")
	d := &Daemon{
		flags: &Flags{Data: t.TempDir(), SealingKey: keyFile, Control: filepath.Join(run, "control.sock"), URL: "https://portal.example.org"},
		out:   io.Discard, log: logs.New(writer{out}, logs.Options{}), plane: plane, fatal: make(chan error, 1), store: st, public: loopback(t),
	}
	d.metrics = d.newMetrics()
	if err := d.useState(t.Context(), func(dataplane.Gateway) error { return nil }); err != nil {
		t.Fatal(err)
	}
	d.rec = reconcile.New(reconcile.Config{State: st.State(), Plane: plane, Gateway: d.gateway, PresharedKey: d.sealer.PresharedKey, Now: time.Now, Log: d.part("test")})
	if err := d.openSockets(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	defer func() { stop(); <-done; d.Close() }()

	if s := <-plane.told; len(s.Sessions) != 1 || len(s.Devices) != 1 {
		t.Errorf("the plane was told %d devices and %d sessions", len(s.Devices), len(s.Sessions))
	}
	public := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, d.public) },
	}}
	inside := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, plane.tunnel) },
	}}
	if status, body := ask(t, public, "GET", "https://vpn.example.org/enroll", ""); status != 200 {
		t.Errorf("the enrolment page: %d %s", status, body)
	}
	set, _ := st.State().View().Settings()
	gate := "http://" + set.GatewayAddrs()[0].String()
	if status, body := ask(t, inside, "GET", gate+"/", ""); status != 200 || !strings.Contains(body, "alice") {
		t.Errorf("the sign-in page: %d %s", status, body)
	}
	if status, body := ask(t, inside, "GET", gate+"/api/v1/session", ""); status != 200 || !strings.Contains(body, `"active"`) {
		t.Errorf("the session: %d %s", status, body)
	}
	code, err := totp.GenerateCode(secret, time.Now().Add(30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	status, body := ask(t, inside, "POST", gate+"/api/v1/session", `{"code":"`+code+`"}`)
	var refusal struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(body), &refusal); err != nil || status != 503 || refusal.Error.Code != control.KindNoLeader {
		t.Errorf("a sign-in: %d %s, %v", status, body, err)
	}
	cc, err := grpc.NewClient("unix:"+filepath.Join(run, "whois.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	if who, err := vpnv1.NewWhoIsServiceClient(cc).WhoIs(ctx, &vpnv1.WhoIsRequest{Address: from.String()}); err != nil || who.GetUser() != "alice" || who.GetSessionExpiresAt() == nil {
		t.Errorf("WhoIs: %v, %v", who, err)
	}
	if now := st.State().View().Index(); now != index {
		t.Errorf("%d commands without a leader", now-index)
	}
	if !strings.Contains(out.String(), "no gateway leads") {
		t.Errorf("logged: %s", out.String())
	}

	st.Follower.Store(false)
	close(st.lead)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if set, _ := st.State().View().Settings(); set.URL == "https://portal.example.org" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("what the flags ask for was not done when this node led")
		}
	}
}

type writer struct{ to *controltest.Log }

func (w writer) Write(b []byte) (int, error) {
	w.to.Logf("%s", strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

func dial(ctx context.Context, l net.Listener) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", l.Addr().String())
}

func ask(t *testing.T, c *http.Client, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}
