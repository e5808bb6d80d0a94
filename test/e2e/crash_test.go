package e2e

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	vpnv1 "vpnd/proto/vpn/v1"
)

// in runs f on a thread that is in the host's network namespace: sockets that f itself
// opens are the host's.
func (h *host) in(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := os.Open("/run/netns/" + h.name)
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// dialer connects from within the host.
func (h *host) dialer(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = h.in(func() error {
		c, err = (&net.Dialer{Timeout: patience * slow}).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// grpc connects to the daemon's control socket.
func (w *world) grpc() *grpc.ClientConn {
	w.t.Helper()
	c, err := grpc.NewClient("unix:"+w.path("run/control.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// fate is what the test knows of one person's phone. A change is "asked" before the
// request and known when the answer has come.
type fate struct {
	name    string
	secret  string
	conf    string // with the private key
	public  string
	added   bool // the user was acknowledged
	device  bool // the device was
	signed  bool // the last acknowledged word about her session is that there is one
	ended   bool // … that there is none, for ever
	pending bool // a change of the session was asked for and not answered
}

// crash is a run of changes that are cut off at any point.
type crash struct {
	t      *testing.T
	w      *world
	client *host
	iface  string

	mu    sync.Mutex
	fates []*fate
	n     int
}

// rounds is how often vpnd is killed.
const rounds = 100

// Killed at random points of a run of enrolments, sign-ins and revocations: every
// acknowledged change is there, none is half there, and the kernel's filter never allows
// what the state does not.
func TestCrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "linux")
	c := &crash{t: t, w: w, client: w.public("crash"), iface: fmt.Sprintf("wgcrash%d", w.id)}
	c.client.start([]string{"WG_PROCESS_FOREGROUND=1"}, "wireguard-go", "-f", c.iface)
	eventually(t, 10*time.Second, "wireguard-go runs", func() error {
		_, err := os.Stat("/run/wireguard/" + c.iface + ".sock")
		return err
	})
	for round := range rounds {
		w.startVpnd()
		c.check(round)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		conn := w.grpc()
		for _, work := range []func(context.Context, *grpc.ClientConn) error{c.enrolSome, c.revokeSome, c.signInSome} {
			wg.Go(func() {
				for ctx.Err() == nil {
					if work(ctx, conn) != nil {
						return // vpnd was killed
					}
				}
			})
		}
		time.Sleep(time.Duration(mrand.IntN(350)) * time.Millisecond)
		w.kill9()
		cancel()
		wg.Wait()
		conn.Close()
		c.filterAllowsNoMore(fmt.Sprintf("after kill %d", round))
	}
	w.startVpnd()
	c.check(rounds)
	added, devices, signed, ended := 0, 0, 0, 0
	for _, f := range c.fates {
		for n, is := range map[*int]bool{&added: f.added, &devices: f.device, &signed: f.signed, &ended: f.ended} {
			if is {
				*n++
			}
		}
	}
	t.Logf("%d kills; acknowledged: %d users, %d devices, %d sessions that live, %d that were ended", rounds, added, devices, signed, ended)
	if added < rounds/2 || devices < rounds/2 || signed+ended < rounds/10 {
		t.Errorf("too little was acknowledged for this test to mean anything")
	}
}

// http is a browser of the client's.
func (c *crash) http() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		c.t.Error(err)
	}
	return &http.Client{Jar: jar, Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext:       c.client.dialer,
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // the fingerprint is tested elsewhere
	}}
}

func post(ctx context.Context, h *http.Client, origin, path string, body, answer any) (int, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequestWithContext(ctx, "POST", origin+path, bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Origin", origin)
	r.Header.Set("Content-Type", "application/json")
	resp, err := h.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err = io.ReadAll(resp.Body)
	if err != nil {
		return 0, err // cut off: nothing is known
	}
	return resp.StatusCode, json.Unmarshal(b, answer)
}

// enrolSome adds one person and enrols her phone.
func (c *crash) enrolSome(ctx context.Context, conn *grpc.ClientConn) error {
	c.mu.Lock()
	c.n++
	f := &fate{name: fmt.Sprintf("p%d", c.n)}
	c.fates = append(c.fates, f)
	c.mu.Unlock()
	r, err := vpnv1.NewUserServiceClient(conn).AddUser(ctx, &vpnv1.AddUserRequest{Name: f.name})
	if err != nil {
		return err
	}
	c.set(func() { f.added = true })
	_, token, _ := strings.Cut(r.GetInvitation().GetLink(), "#")
	h, origin := c.http(), "https://"+gwPublic4+":8443"
	var begin struct{ Secret string }
	if status, err := post(ctx, h, origin, "/api/v1/enroll/begin", map[string]string{"token": token}, &begin); err != nil || status != 200 {
		return fmt.Errorf("begin: %d %w", status, err)
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	// The step before the present one: the present one is for signing in.
	code, err := totp.GenerateCode(begin.Secret, time.Now().Add(-30*time.Second))
	if err != nil {
		return err
	}
	public := base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())
	c.set(func() { f.public = public })
	var done struct{ Config string }
	status, err := post(ctx, h, origin, "/api/v1/enroll/finish", map[string]string{
		"token": token, "code": code, "device": "phone", "public_key": public}, &done)
	if err != nil || status != 201 {
		return fmt.Errorf("finish: %d %w", status, err)
	}
	c.set(func() {
		f.device, f.secret = true, begin.Secret
		f.conf = strings.Replace(done.Config, "[Interface]\n", "[Interface]\nPrivateKey = "+base64.StdEncoding.EncodeToString(key.Bytes())+"\n", 1)
	})
	return nil
}

func (c *crash) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// pick gives the newest fate that suits.
func (c *crash) pick(suits func(*fate) bool) *fate {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.fates) - 1; i >= 0; i-- {
		if f := c.fates[i]; !f.pending && suits(f) {
			f.pending = true
			return f
		}
	}
	return nil
}

// signInSome makes the client one of the phones and signs it in through the tunnel.
func (c *crash) signInSome(ctx context.Context, _ *grpc.ClientConn) error {
	f := c.pick(func(f *fate) bool { return f.device && !f.signed && !f.ended })
	if f == nil {
		time.Sleep(5 * time.Millisecond)
		return nil
	}
	p := &client{host: c.client, w: c.w, iface: c.iface}
	p.setConf(f.conf)
	if err := c.wear(p); err != nil {
		return err
	}
	code, err := totp.GenerateCode(f.secret, time.Now())
	if err != nil {
		return err
	}
	var s session
	status, err := post(ctx, c.http(), "http://"+tunnel4, "/api/v1/session", map[string]string{"code": code}, &s)
	if err != nil {
		return err
	}
	c.set(func() {
		f.pending = false
		switch {
		case status == 200:
			f.signed = true
		case s.Error.Code == "code_used" || s.Error.Code == "code_invalid": // the step went by
			f.ended = f.ended || f.signed
		default:
			c.t.Errorf("%s signs in: %d %+v", f.name, status, s)
		}
	})
	return ctx.Err()
}

// wear gives the client's interface a phone's keys and addresses.
func (c *crash) wear(p *client) error {
	path := "/run/" + c.iface + ".conf"
	if err := os.WriteFile(path, []byte(p.conf), 0o600); err != nil {
		return err
	}
	script := `wg-quick strip "$1" > "$1.wg" && wg setconf "$2" "$1.wg" && ip addr flush dev "$2" &&
		ip link set "$2" mtu 1420 up && ip addr add "$3/32" dev "$2" && ip route replace 10.77.0.0/16 dev "$2"`
	_, err := c.client.try("sh", "-c", script, "sh", path, c.iface, p.addr4)
	return err
}

// revokeSome ends a session in one of the ways there are.
func (c *crash) revokeSome(ctx context.Context, conn *grpc.ClientConn) error {
	f := c.pick(func(f *fate) bool { return f.signed && mrand.IntN(3) == 0 })
	if f == nil {
		time.Sleep(10 * time.Millisecond)
		return nil
	}
	var err error
	switch device := f.name + "/phone"; mrand.IntN(4) {
	case 0:
		_, err = vpnv1.NewSessionServiceClient(conn).EndSessions(ctx, &vpnv1.EndSessionsRequest{Which: &vpnv1.EndSessionsRequest_Device{Device: device}})
	case 1:
		_, err = vpnv1.NewDeviceServiceClient(conn).SetDeviceEnabled(ctx, &vpnv1.SetDeviceEnabledRequest{Name: device})
	case 2:
		_, err = vpnv1.NewUserServiceClient(conn).SetUserEnabled(ctx, &vpnv1.SetUserEnabledRequest{Name: f.name})
	case 3:
		_, err = vpnv1.NewUserServiceClient(conn).ResetTotp(ctx, &vpnv1.ResetTotpRequest{Name: f.name})
	}
	if err != nil {
		return err
	}
	c.set(func() { f.pending, f.signed, f.ended = false, false, true })
	return nil
}

// check compares the state after a restart with what was acknowledged, and the kernel's
// filter with the state.
func (c *crash) check(round int) {
	c.t.Helper()
	conn := c.w.grpc()
	defer conn.Close()
	list, err := vpnv1.NewUserServiceClient(conn).ListUsers(c.t.Context(), &vpnv1.ListUsersRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	devices, err := vpnv1.NewDeviceServiceClient(conn).ListDevices(c.t.Context(), &vpnv1.ListDevicesRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	sessions, err := vpnv1.NewSessionServiceClient(conn).ListSessions(c.t.Context(), &vpnv1.ListSessionsRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	users := map[string]bool{}
	for _, u := range list.GetUsers() {
		users[u.GetName()] = true
		// An enrolment is whole: an authenticator and a device, or neither.
		if u.GetEnrolled() && len(u.GetDevices()) == 0 {
			c.t.Errorf("round %d: %s has an authenticator and no device", round, u.GetName())
		}
	}
	keys, addrs := map[string]string{}, map[string]string{}
	for _, d := range devices.GetDevices() {
		keys[d.GetName()] = d.GetPublicKey()
		if len(d.GetAddresses()) != 2 {
			c.t.Errorf("round %d: %s has the addresses %v", round, d.GetName(), d.GetAddresses())
		}
		for _, a := range d.GetAddresses() {
			if other := addrs[a]; other != "" {
				c.t.Errorf("round %d: %s belongs to %s and %s", round, a, other, d.GetName())
			}
			addrs[a] = d.GetName()
		}
	}
	live, allowed := map[string]bool{}, map[string]bool{}
	for _, s := range sessions.GetSessions() {
		live[s.GetDevice()] = true
		for _, a := range s.GetAddresses() {
			allowed[a] = true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.fates {
		device := f.name + "/phone"
		switch {
		case f.added && !users[f.name]:
			c.t.Errorf("round %d: %s was acknowledged and is gone", round, f.name)
		case f.device && keys[device] != f.public:
			c.t.Errorf("round %d: %s was acknowledged with key %s and has %q", round, device, f.public, keys[device])
		case f.pending: // asked and not answered: either is right, and known from now on
			f.pending = false
			f.ended = f.ended || f.signed && !live[device]
			f.signed = live[device]
		case f.signed && !live[device]:
			c.t.Errorf("round %d: the session of %s was acknowledged and is gone", round, device)
		case f.ended && live[device]:
			c.t.Errorf("round %d: the session of %s was ended and is back", round, device)
		}
	}
	for a := range c.filterSessions() {
		if !allowed[a] {
			c.t.Errorf("round %d: the filter has a session for %s (%s), the state has none", round, a, addrs[a])
		}
	}
	if c.t.Failed() {
		c.t.FailNow()
	}
}

// filterSessions reads whom the kernel's filter lets through.
func (c *crash) filterSessions() map[string]bool {
	c.t.Helper()
	var doc struct {
		Nftables []struct {
			Map, Set *struct {
				Name string
				Elem []json.RawMessage
			}
		}
	}
	var out string
	// Seen once in thousands: nft ends well and has printed nothing. A table that is not
	// there is an error of its own, and ends the test at once.
	eventually(c.t, 5*time.Second, "nft lists the table", func() error {
		out = c.w.gw.run("nft", "-j", "list", "table", "inet", "vpnd")
		return json.Unmarshal([]byte(out), &doc)
	})
	found, sets := map[string]bool{}, 0
	for _, o := range doc.Nftables {
		for _, s := range []*struct {
			Name string
			Elem []json.RawMessage
		}{o.Map, o.Set} {
			if s == nil || !strings.HasPrefix(s.Name, "session") {
				continue
			}
			sets++
			for _, e := range s.Elem {
				for a := range strings.FieldsFuncSeq(string(e), func(r rune) bool { return !strings.ContainsRune("0123456789abcdef.:", r) }) {
					if ip := net.ParseIP(a); ip != nil && (strings.HasPrefix(a, "10.77.") || strings.HasPrefix(a, "fd77:")) {
						found[a] = true
					}
				}
			}
		}
	}
	if sets == 0 {
		c.t.Fatalf("the table has no session sets:\n%s", out)
	}
	return found
}

// filterAllowsNoMore looks at the filter that a killed vpnd left behind: nobody whose
// session was acknowledged as ended is in it.
func (c *crash) filterAllowsNoMore(when string) {
	c.t.Helper()
	in := c.filterSessions()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.fates {
		if !f.ended || f.pending || f.conf == "" {
			continue
		}
		p := &client{host: c.client}
		p.setConf(f.conf)
		if in[p.addr4] || in[p.addr6] {
			c.t.Fatalf("%s: the filter still lets %s through, whose session was ended", when, f.name)
		}
	}
}
