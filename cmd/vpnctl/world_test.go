package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"vpnd/internal/locals"

	"github.com/pquerna/otp/totp"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"

	"vpnd/acl/rules"
	"vpnd/internal/api"
	"vpnd/internal/control"
	"vpnd/internal/dataplane"
	"vpnd/internal/store"
	"vpnd/peers"
)

// world is a vpnd without a data plane.
type world struct {
	store   *store.Store
	service *control.Service
	plane   *plane
	server  *grpc.Server
	socket  string
	once    sync.Once
	running context.CancelFunc // ends what the daemon does by itself

	mu      sync.Mutex
	behind  time.Duration // the daemon's clock; it moves on with every code that is used
	secrets map[string]string
}

type worldKey struct{}

// plane is a gateway that holds everything at once, unless it is told that it is stuck.
type plane struct {
	mu      sync.Mutex
	applied uint64
	stuck   bool
	open    map[uint16]bool // the ports that pass
	peers   map[dataplane.Key]dataplane.PeerStats
}

func (p *plane) Wait(_ context.Context, index uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stuck {
		return errors.New("the packet filter does not answer")
	}
	p.applied = max(p.applied, index)
	return nil
}

func (p *plane) Applied() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.applied
}

// Permits stands in for a filter, which knows ports alone.
func (p *plane) Permits(_ context.Context, f dataplane.Flow) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stuck {
		return false, errors.New("the packet filter does not answer")
	}
	return p.open[f.DstPort], nil
}

func (p *plane) Rules() *rules.Ruleset { return nil }

func (p *plane) Stats(context.Context, ...dataplane.Key) (dataplane.Stats, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := dataplane.Stats{Plane: "linux", Detail: "wireguard-go inside vpnd", Peers: make(map[dataplane.Key]dataplane.PeerStats)}
	for k, v := range p.peers {
		s.Peers[k] = v
	}
	if p.stuck {
		s.Filters = dataplane.Complaints("chain FORWARD of table ip filter drops what vpnd forwards: nft insert rule ip filter FORWARD iifname vpn0 accept")
	}
	return s, nil
}

func newWorld(dir string) (_ *world, err error) {
	w := &world{
		plane: &plane{peers: make(map[dataplane.Key]dataplane.PeerStats)}, socket: filepath.Join(dir, "vpnd.sock"),
		behind: 10 * time.Minute, secrets: make(map[string]string),
	}
	ctx := context.Background()
	w.store, err = store.Open(ctx, store.Config{Dir: filepath.Join(dir, ".data"), NodeID: strings.Repeat("4a", 16)})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.store.Close()
		}
	}()
	if err := w.store.Ready(ctx); err != nil {
		return nil, err
	}
	sealer, err := control.NewSealer(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	_, err = control.Bootstrap(ctx, w.store, sealer, control.BootstrapConfig{
		Endpoint: "vpn.example.org:51820", Network: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")}, Now: w.now,
	})
	if err != nil {
		return nil, err
	}
	list, err := locals.Open(filepath.Join(dir, ".local-targets"), nil, nil)
	if err != nil {
		return nil, err
	}
	w.service = control.New(control.Config{Store: w.store, Gateway: w.plane, Sealer: sealer, Now: w.now, Version: "v0.1.0", Locals: list})
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		return nil, err
	}
	edge := api.New(w.service, slog.New(slog.DiscardHandler))
	w.server = edge.Control()
	go w.server.Serve(l)
	ctx, w.running = context.WithCancel(ctx)
	go w.service.Run(ctx)
	go edge.Run(ctx)
	return w, nil
}

func (w *world) close() {
	w.once.Do(func() {
		w.running()
		w.server.Stop()
		w.store.Close()
	})
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(-w.behind)
}

// code is a code that nobody has used: the clock moves on by two steps.
func (w *world) code(user string) (string, error) {
	w.mu.Lock()
	w.behind -= time.Minute
	secret := w.secrets[user]
	w.mu.Unlock()
	if secret == "" {
		return "", fmt.Errorf("%s was not enrolled here", user)
	}
	return totp.GenerateCode(secret, w.now())
}

// enrol NAME DEVICE: the link that vpnctl has printed is used, as a browser would do.
func (w *world) enrol(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: enrol NAME DEVICE, after a command that printed an invitation")
	}
	_, token, ok := strings.Cut(ts.ReadFile("stdout"), "/enroll#")
	if !ok {
		return errors.New("the last output has no invitation")
	}
	if i := strings.IndexAny(token, "\"\n "); i >= 0 {
		token = token[:i]
	}
	ctx := context.Background()
	e, err := w.service.EnrolBegin(ctx, token, "browser")
	if err != nil {
		return err
	}
	if e.Secret != "" {
		w.mu.Lock()
		w.secrets[args[0]] = e.Secret
		w.mu.Unlock()
	}
	code, err := w.code(args[0])
	if err != nil {
		return err
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	_, err = w.service.EnrolFinish(ctx, control.FinishRequest{
		Token: token, Browser: "browser", Code: code, Device: args[1],
		PublicKey: base64.StdEncoding.EncodeToString(key.PublicKey().Bytes()),
	})
	return err
}

// device finds USER/DEVICE.
func (w *world) device(name string) (*peers.Device, error) {
	user, device, _ := strings.Cut(name, "/")
	v := w.store.State().View()
	if u := v.UserByName(user); u != nil {
		if d := v.DeviceByName(u.ID, device); d != nil {
			return d, nil
		}
	}
	return nil, fmt.Errorf("no device %s", name)
}

// signin USER/DEVICE gives a right code through the tunnel.
func (w *world) signIn(_ *testscript.TestScript, args []string) error {
	d, err := w.device(args[0])
	if err != nil {
		return err
	}
	user, _, _ := strings.Cut(args[0], "/")
	code, err := w.code(user)
	if err != nil {
		return err
	}
	_, err = w.service.SignIn(context.Background(), d.Addrs[0], code)
	return err
}

// lock USER/DEVICE gives wrong codes until the user is locked.
func (w *world) lock(_ *testscript.TestScript, args []string) error {
	d, err := w.device(args[0])
	if err != nil {
		return err
	}
	for n := range 100 {
		_, err := w.service.SignIn(context.Background(), d.Addrs[0], fmt.Sprintf("%06d", n))
		var e *control.Error
		if errors.As(err, &e) && e.Kind() == control.KindLocked {
			return nil
		}
	}
	return errors.New("a hundred wrong codes and no lock")
}

// seen USER/DEVICE: the device has shaken hands a minute ago.
func (w *world) seen(_ *testscript.TestScript, args []string) error {
	d, err := w.device(args[0])
	if err != nil {
		return err
	}
	w.plane.mu.Lock()
	defer w.plane.mu.Unlock()
	w.plane.peers[dataplane.Key(d.PublicKey)] = dataplane.PeerStats{
		Endpoint: netip.MustParseAddrPort("192.0.2.7:40123"), LastHandshake: time.Now().Add(-time.Minute),
		Received: 1536, Sent: 5 << 30,
	}
	return nil
}

// gateway stuck|well.
func (w *world) setGateway(_ *testscript.TestScript, args []string) error {
	w.plane.mu.Lock()
	defer w.plane.mu.Unlock()
	w.plane.stuck = args[0] == "stuck"
	return nil
}

// passes PORT… are what the data plane lets pass from now on.
func (w *world) passes(_ *testscript.TestScript, args []string) error {
	open := map[uint16]bool{}
	for _, s := range args {
		port, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return err
		}
		open[uint16(port)] = true
	}
	w.plane.mu.Lock()
	defer w.plane.mu.Unlock()
	w.plane.open = open
	return nil
}

// inForce VERSION waits until it is.
func (w *world) inForce(_ *testscript.TestScript, args []string) error {
	version, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	late := time.After(20 * time.Second)
	for {
		v := w.store.State().View()
		if v.Policy().Version == version {
			return nil
		}
		select {
		case <-v.Changed():
		case <-late:
			return fmt.Errorf("version %d is in force", v.Policy().Version)
		}
	}
}

// stop stops the daemon.
func (w *world) stop(*testscript.TestScript, []string) error {
	w.close()
	return nil
}
