package e2e

import (
	"crypto/tls"
	be "encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"context"

	"github.com/pquerna/otp/totp"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	vpnv1 "vpnd/proto/vpn/v1"
)

// tick is the pause between two packets of a probe, and with it how exactly the first and
// the last packet are known.
const tick = 500 * time.Microsecond

// impersonator is a host with one WireGuard interface (Debian's wireguard-go), which is
// one person's phone after the other.
type impersonator struct {
	*bed
	host  *host
	iface string
	wg    *wgctrl.Client
	last  string // the address of the phone that it is
	meter meter
}

// meter is the resource: it notes when packets of the probe come, and streams back.
type meter struct {
	conn   net.PacketConn
	probe  atomic.Uint64 // whose packets count
	first  atomic.Int64  // Unix nanoseconds; 0: none yet
	latest atomic.Int64
	stream atomic.Bool // whether to send back
	back   atomic.Int64
}

// impersonate makes the host, and the resource behind the gateway.
func (b *bed) impersonate() {
	b.t.Helper()
	v := &impersonator{bed: b, host: b.public("c"), iface: fmt.Sprintf("wgb%d", b.id)}
	v.host.start([]string{"WG_PROCESS_FOREGROUND=1"}, "wireguard-go", "-f", v.iface)
	eventually(b.t, 10*time.Second, "wireguard-go runs", func() error {
		_, err := os.Stat("/run/wireguard/" + v.iface + ".sock")
		return err
	})
	v.host.run("ip", "link", "set", v.iface, "mtu", "1420", "up")
	for _, p := range []string{benchNetwork, "198.51.100.0/24"} {
		v.host.run("ip", "route", "add", p, "dev", v.iface)
	}
	var err error
	if v.wg, err = wgctrl.New(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { v.wg.Close() })
	if err = b.lan.in(func() (err error) { v.meter.conn, err = net.ListenPacket("udp4", ":9000"); return err }); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { v.meter.conn.Close() })
	go v.meter.run()
	b.vm = v
}

func (m *meter) run() {
	var to atomic.Pointer[net.Addr]
	go func() {
		packet := make([]byte, 8)
		for {
			time.Sleep(tick)
			if a := to.Load(); a != nil && m.stream.Load() {
				be.BigEndian.PutUint64(packet, m.probe.Load())
				if _, err := m.conn.WriteTo(packet, *a); err != nil && strings.Contains(err.Error(), "closed") {
					return
				}
			}
		}
	}()
	packet := make([]byte, 64)
	for {
		n, from, err := m.conn.ReadFrom(packet)
		if err != nil {
			return
		}
		now := time.Now().UnixNano()
		if n == 8 && be.BigEndian.Uint64(packet) == m.probe.Load() {
			m.first.CompareAndSwap(0, now)
			m.latest.Store(now)
			to.Store(&from)
		}
	}
}

// phone is an enrolled device of a person.
type phone struct {
	user, secret string
	addr         netip.Addr
	private      wgtypes.Key
	peer         wgtypes.PeerConfig
}

// enrol makes a person through gRPC and enrols her phone through the public portal.
func (v *impersonator) enrol(ctx context.Context) (*phone, error) {
	v.seq++
	p := &phone{user: fmt.Sprintf("p%d", v.seq)}
	r, err := vpnv1.NewUserServiceClient(v.conn).AddUser(ctx, &vpnv1.AddUserRequest{Name: p.user})
	if err != nil {
		return nil, err
	}
	_, token, _ := strings.Cut(r.GetInvitation().GetLink(), "#")
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	h := &http.Client{Jar: jar, Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: v.host.dialer, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	defer h.CloseIdleConnections()
	origin := "https://" + gwPublic4 + ":8443"
	var begin struct{ Secret string }
	if err := patiently(h, origin, "/api/v1/enroll/begin", 200, &begin, func() map[string]string {
		return map[string]string{"token": token}
	}); err != nil {
		return nil, err
	}
	p.secret = begin.Secret
	if p.private, err = wgtypes.GeneratePrivateKey(); err != nil {
		return nil, err
	}
	var done struct{ Config string }
	if err := patiently(h, origin, "/api/v1/enroll/finish", 201, &done, func() map[string]string {
		// The code before the present one: that is for signing in.
		code, _ := totp.GenerateCode(p.secret, time.Now().Add(-30*time.Second))
		return map[string]string{"token": token, "code": code, "device": "phone", "public_key": p.private.PublicKey().String()}
	}); err != nil {
		return nil, err
	}
	return p, p.read(done.Config)
}

// patiently posts again when the public portal, which takes 8 requests a second from one
// address, says that it is too early.
func patiently(h *http.Client, origin, path string, want int, answer any, body func() map[string]string) error {
	for {
		status, err := post(context.Background(), h, origin, path, body(), answer)
		if err == nil && status == http.StatusTooManyRequests {
			time.Sleep(130 * time.Millisecond)
			continue
		}
		if err != nil || status != want {
			return fmt.Errorf("%s: %d %w", path, status, err)
		}
		return nil
	}
}

// read takes what the config says over.
func (p *phone) read(config string) (err error) {
	for line := range strings.Lines(config) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
		switch name {
		case "Address":
			first, _, _ := strings.Cut(value, ",")
			prefix, err := netip.ParsePrefix(strings.TrimSpace(first))
			if err != nil {
				return err
			}
			p.addr = prefix.Addr()
		case "PublicKey":
			if p.peer.PublicKey, err = wgtypes.ParseKey(value); err != nil {
				return err
			}
		case "PresharedKey":
			k, err := wgtypes.ParseKey(value)
			if err != nil {
				return err
			}
			p.peer.PresharedKey = &k
		}
	}
	p.peer.Endpoint = &net.UDPAddr{IP: net.ParseIP(gwPublic4), Port: 51820}
	p.peer.AllowedIPs = []net.IPNet{{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}}
	p.peer.ReplaceAllowedIPs = true
	return nil
}

// wear makes the host this phone.
func (v *impersonator) wear(p *phone) error {
	was := v.last
	v.last = p.addr.String() + "/32"
	if _, err := v.host.try("ip", "addr", "replace", v.last, "dev", v.iface); err != nil {
		return err
	}
	if was != "" && was != v.last { // only now: with its last address an interface loses its routes
		if _, err := v.host.try("ip", "addr", "del", was, "dev", v.iface); err != nil {
			return err
		}
	}
	return v.wg.ConfigureDevice(v.iface, wgtypes.Config{PrivateKey: &p.private, ReplacePeers: true, Peers: []wgtypes.PeerConfig{p.peer}})
}

// browser is one that comes from the phone's tunnel address.
func (v *impersonator) browser(p *phone) *http.Client {
	from := &net.TCPAddr{IP: p.addr.AsSlice()}
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			err = v.host.in(func() error {
				c, err = (&net.Dialer{LocalAddr: from, Timeout: 5 * time.Second}).DialContext(ctx, network, addr)
				return err
			})
			return c, err
		},
	}}
}

// sample is what one sign-in and one revocation took.
type sample struct {
	open     time.Duration // POST of the code to the first packet at the resource
	answered time.Duration // … to the portal's answer
	shut     time.Duration // revocation asked for to the last packet of either direction
	told     time.Duration // … to its answer
	fsync    time.Duration // of the log's disk, just before
}

// signInAndOut enrols a person, signs her phone in, ends her session and removes her.
func (v *impersonator) signInAndOut(ctx context.Context) (s sample, err error) {
	p, err := v.enrol(ctx)
	if err != nil {
		return s, fmt.Errorf("enrolling: %w", err)
	}
	defer func() {
		_, rerr := vpnv1.NewUserServiceClient(v.conn).RemoveUser(ctx, &vpnv1.RemoveUserRequest{Name: p.user})
		if err == nil {
			err = rerr
		}
	}()
	if err := v.wear(p); err != nil {
		return s, err
	}
	h := v.browser(p)
	defer h.CloseIdleConnections()
	origin := "http://" + benchGateway
	r, err := h.Get(origin + "/api/v1/session") // the person opens the page: handshakes are done by then
	if err != nil {
		return s, err
	}
	r.Body.Close()

	m := &v.meter
	m.first.Store(0)
	m.back.Store(0)
	m.stream.Store(false)
	id := m.probe.Add(1)
	stop, err := v.probe(p, id)
	if err != nil {
		return s, err
	}
	defer stop()
	time.Sleep(10 * time.Millisecond)
	code, err := totp.GenerateCode(p.secret, time.Now())
	if err != nil {
		return s, err
	}
	s.fsync = v.fsync()

	begin := time.Now()
	var answer session
	status, err := post(context.Background(), h, origin, "/api/v1/session", map[string]string{"code": code}, &answer)
	s.answered = time.Since(begin)
	if err != nil || status != 200 || answer.State != "active" {
		return s, fmt.Errorf("signing in: %d %+v %w", status, answer, err)
	}
	for m.first.Load() == 0 {
		if time.Since(begin) > 5*time.Second {
			return s, fmt.Errorf("signed in, and nothing passes")
		}
		time.Sleep(tick)
	}
	if s.open = time.Duration(m.first.Load() - begin.UnixNano()); s.open < 0 {
		return s, fmt.Errorf("a packet passed %v before the code was given", -s.open)
	}

	m.stream.Store(true)
	for since := time.Now(); m.back.Load() == 0; time.Sleep(tick) {
		if time.Since(since) > 5*time.Second {
			return s, fmt.Errorf("nothing comes back from the resource")
		}
	}
	begin = time.Now()
	_, err = vpnv1.NewSessionServiceClient(v.conn).EndSessions(ctx, &vpnv1.EndSessionsRequest{Which: &vpnv1.EndSessionsRequest_Device{Device: p.user + "/phone"}})
	s.told = time.Since(begin)
	if err != nil {
		return s, err
	}
	const quiet = 60 * time.Millisecond // then no more is to come
	latest := begin.UnixNano()
	for {
		latest = max(latest, m.latest.Load(), m.back.Load())
		if time.Now().UnixNano()-latest > int64(quiet) && time.Since(begin) > s.told+quiet {
			break
		}
		if time.Since(begin) > s.told+2*time.Second {
			return s, fmt.Errorf("packets still pass 2 s after the revocation was answered")
		}
		time.Sleep(tick)
	}
	s.shut = time.Duration(latest - begin.UnixNano())
	return s, nil
}

// signIn gives a code through the tunnel.
func (v *impersonator) signIn(p *phone) error {
	h := v.browser(p)
	defer h.CloseIdleConnections()
	code, err := totp.GenerateCode(p.secret, time.Now())
	if err != nil {
		return err
	}
	var answer session
	status, err := post(context.Background(), h, "http://"+benchGateway, "/api/v1/session", map[string]string{"code": code}, &answer)
	if err != nil || status != 200 || answer.State != "active" {
		return fmt.Errorf("signing in: %d %+v %w", status, answer, err)
	}
	return nil
}

// probe sends packets from the phone to the resource, and notes what comes back.
func (v *impersonator) probe(p *phone, id uint64) (stop func(), err error) {
	var c net.Conn
	err = v.host.in(func() error {
		c, err = net.DialUDP("udp4", &net.UDPAddr{IP: p.addr.AsSlice()}, &net.UDPAddr{IP: net.ParseIP(lan4), Port: 9000})
		return err
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		packet := be.BigEndian.AppendUint64(nil, id)
		for ctx.Err() == nil {
			c.Write(packet) // refusals by ICMP are expected
			time.Sleep(tick)
		}
	})
	wg.Go(func() {
		packet := make([]byte, 64)
		for ctx.Err() == nil {
			if n, err := c.Read(packet); err == nil && n == 8 {
				v.meter.back.Store(time.Now().UnixNano())
			} else if err != nil {
				time.Sleep(tick)
			}
		}
	})
	return func() { cancel(); c.Close(); wg.Wait() }, nil
}
