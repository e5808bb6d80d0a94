package scale

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"vpnd/acl/acltest"
	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux"
	"vpnd/internal/reconcile"
	"vpnd/peers"
)

// job is what a gateway's process is told, in VPND_SCALE_JOB.
type job struct {
	Interface string
	Default   bool // the policy that everybody begins with
	Large     acltest.Large
}

// gateway is state, reconciler and linux plane in a process and a namespace of its own, as
// vpnd has them, without Raft: from the moment that a command is applied it is what a node
// does after the commit.
type gateway struct {
	name string
	stop func() // ends it
	cmd  *exec.Cmd
	ask  *json.Encoder
	tell *bufio.Scanner
}

// startGateway starts one and waits until everybody is in the kernel.
func startGateway(t *testing.T, n int, name string, j job) *gateway {
	t.Helper()
	ns := fmt.Sprintf("n%d", n)
	sh(t, fmt.Sprintf("ip netns add %s; ip -n %s link set lo up", ns, ns))
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	j.Interface = fmt.Sprintf("vpnscale%d", n)
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{name: name, cmd: exec.Command("ip", "netns", "exec", ns, os.Args[0])}
	g.cmd.Env = append(os.Environ(), "VPND_SCALE_JOB="+string(text))
	g.cmd.Stderr = os.Stderr
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := g.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g.stop = sync.OnceFunc(func() {
		_ = in.Close() // it ends then
		_ = g.cmd.Wait()
	})
	t.Cleanup(g.stop)
	g.ask, g.tell = json.NewEncoder(in), bufio.NewScanner(out)
	g.took(t, "")
	return g
}

// took asks the gateway to do something, and says how long that took from commit to kernel.
func (g *gateway) took(t *testing.T, what string) time.Duration {
	t.Helper()
	if what != "" {
		if err := g.ask.Encode(what); err != nil {
			t.Fatal(err)
		}
	}
	var d time.Duration
	if !g.tell.Scan() {
		t.Fatalf("the gateway with %s has ended", g.name)
	}
	if err := json.Unmarshal(g.tell.Bytes(), &d); err != nil {
		t.Fatalf("the gateway with %s: %s", g.name, g.tell.Text())
	}
	return d
}

// node is the inside of a gateway's process.
type node struct {
	job
	state   *peers.State
	rec     *reconcile.Reconciler
	index   uint64
	devices []peers.ID
	step    int64
	texts   [3]string // the policy, with a user more in a group, with a grant more
	now     int       // which of them is in force
}

// runJob is the gateway's process: it does what it reads and writes how long it took.
func runJob(text string) error {
	n := &node{state: peers.New(), step: 100}
	if err := json.Unmarshal([]byte(text), &n.job); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := n.fill(); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	plane, err := linux.New(ctx, dataplane.Config{Interface: n.Interface, AppPort: 8080, Log: log})
	if err != nil {
		return err
	}
	defer func() { _ = plane.Close() }()
	n.rec = reconcile.New(reconcile.Config{
		State: n.state, Plane: plane, Now: time.Now, Log: log,
		PresharedKey: func(*peers.Device) (dataplane.Key, error) { return dataplane.Key{}, nil },
		Gateway: func(s peers.Settings) (dataplane.Gateway, error) {
			return dataplane.Gateway{PrivateKey: dataplane.Key(s.PrivateKey), Listen: netip.MustParseAddrPort("0.0.0.0:0"), Addrs: s.GatewayAddrs(), Network: s.Network}, nil
		},
	})
	go func() { _ = n.rec.Run(ctx) }()
	if err := n.rec.Wait(ctx, n.index); err != nil {
		return err
	}
	answer := json.NewEncoder(os.Stdout)
	_ = answer.Encode(time.Duration(0))
	for d := json.NewDecoder(os.Stdin); ; {
		var what string
		if err := d.Decode(&what); err != nil {
			return nil // whoever asks has ended
		}
		took, err := n.do(ctx, what)
		if err != nil {
			return err
		}
		if err := answer.Encode(took); err != nil {
			return err
		}
	}
}

// fill makes the state, by the commands that make it in life.
func (n *node) fill() error {
	n.texts[0] = n.Large.Text()
	if n.Default {
		n.texts[0] = `{"grants": [{"src": ["autogroup:member"], "dst": ["app"], "ip": ["tcp:8080"]}]}`
	}
	more := n.Large
	more.More = map[int][]string{3: {more.User(4)}}
	n.texts[1] = more.Text()
	more = n.Large
	more.Extra = append(more.Extra, `{"src": ["group:g0"], "dst": ["app"], "ip": ["tcp:9"]}`)
	n.texts[2] = more.Text()
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return err
	}
	err = n.apply(peers.Init{Policy: n.texts[0], Settings: peers.Settings{
		Cluster: random16(), Created: time.Now().UTC(), PrivateKey: key[:], CAKey: []byte{1}, CACert: []byte{1}, PublicKey: peers.Key(key.PublicKey()),
		Network:  acltest.LargeOptions.Network,
		Endpoint: "192.0.2.1:51820", URL: "https://192.0.2.1:8443", Session: acltest.LargeOptions.Session,
	}})
	for i := 0; i < n.Large.Devices && err == nil; i++ {
		err = n.enrol(i)
	}
	return err
}

// enrol adds a device, and with every second one its user, and signs it in.
func (n *node) enrol(i int) error {
	device := peers.NewDevice{ID: random16(), Name: fmt.Sprintf("d%d", i%2), PublicKey: peers.Key(random32()), PresharedKey: []byte{1}}
	n.devices = append(n.devices, device.ID)
	if i%2 == 1 {
		user := n.state.View().UserByName(n.Large.User(i / 2))
		if err := n.apply(peers.DeviceAdd{User: user.ID, Device: device}); err != nil {
			return err
		}
	} else {
		inv := peers.NewInvitation{ID: random16(), Hash: random32(), Expires: time.Now().Add(time.Hour)}
		browser := random32()
		for _, b := range []peers.Body{
			peers.UserAdd{ID: random16(), Name: n.Large.User(i / 2), Invitation: &inv},
			peers.EnrolBegin{Invitation: inv.ID, Browser: browser, Secret: []byte{1}},
			peers.EnrolFinish{Invitation: inv.ID, Browser: browser, Step: 1, Device: device},
		} {
			if err := n.apply(b); err != nil {
				return err
			}
		}
	}
	n.step++
	return n.apply(peers.Login{Device: device.ID, Step: n.step})
}

func (n *node) encode(b peers.Body) ([]byte, error) {
	return peers.Encode(peers.Command{Request: random16(), At: time.Now().UTC().Round(0), Actor: "scale", Body: b})
}

func (n *node) applyRaw(raw []byte) error {
	n.index++
	res, err := n.state.Apply(n.index, raw)
	return errors.Join(err, res.Err)
}

func (n *node) apply(b peers.Body) error {
	raw, err := n.encode(b)
	if err == nil {
		err = n.applyRaw(raw)
	}
	if err != nil {
		return fmt.Errorf("%T: %w", b, err)
	}
	return nil
}

// do carries out one thing and says how long it was from its commit to the kernel.
func (n *node) do(ctx context.Context, what string) (time.Duration, error) {
	var i int
	if k, _ := fmt.Sscanf(what, "sign-in %d", &i); k == 1 {
		n.step++
		if _, err := n.timed(ctx, peers.SessionEnd{Device: n.devices[i%len(n.devices)]}); err != nil {
			return 0, err
		}
		return n.timed(ctx, peers.Login{Device: n.devices[i%len(n.devices)], Step: n.step})
	}
	// "member" and "grant" go to another policy and, when it is in force, back.
	next := map[string]int{"member": 1, "grant": 2}[what]
	if n.now == next {
		next = 0
	}
	n.now = next
	return n.timed(ctx, peers.PolicyApplyV1{Text: n.texts[next], Base: n.state.View().Policy().Version})
}

// timed applies a command, which is when Raft has committed it, and waits for the kernel.
func (n *node) timed(ctx context.Context, b peers.Body) (time.Duration, error) {
	raw, err := n.encode(b)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := n.applyRaw(raw); err != nil {
		return 0, fmt.Errorf("%T: %w", b, err)
	}
	err = n.rec.Wait(ctx, n.index)
	return time.Since(begin), err
}

func random16() (id peers.ID) { _, _ = rand.Read(id[:]); return id }

func random32() (b [32]byte) {
	_, _ = rand.Read(b[:])
	binary.BigEndian.PutUint16(b[:], binary.BigEndian.Uint16(b[:])|1) // never all zero
	b[31] &= 0x7f                                                     // as X25519 writes a key
	return b
}
