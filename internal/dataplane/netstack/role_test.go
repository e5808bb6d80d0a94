package netstack

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
)

// The plane under test can run in a process of its own, as the user nobody. It is told
// what to do by lines of JSON on its standard input, and answers each by one.

const roleEnv = "VPND_NETSTACK_TEST_ROLE"

// order is one call of the plane. Policy, when not empty, gives Rules for Devices.
type order struct {
	Set     *dataplane.State
	Update  *dataplane.Change
	Policy  string
	Devices []dataplane.Device
}

type answer struct {
	Err    string
	Detail string
	Caps   string // of the process, to prove that it has none
	UID    int
	Keys   []dataplane.Key // of Stats.Peers: a Key is no key of a JSON object
	Peers  []dataplane.PeerStats
}

// playRole is the child's main.
func playRole(string) int {
	ctx := context.Background()
	p, err := New(ctx, dataplane.Config{
		AppPort: 8080,
		Log:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer p.Close()
	l, err := p.Listen(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != gateway4.String() && r.Host != "["+gateway6.String()+"]" {
			http.Redirect(w, r, "http://"+gateway4.String()+"/", http.StatusSeeOther)
			return
		}
		host, _ := netip.ParseAddrPort(r.RemoteAddr)
		fmt.Fprintf(w, "sign in, %v", host.Addr())
	}))
	in, out := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for {
		var o order
		if in.Decode(&o) != nil {
			return 0
		}
		if err := out.Encode(carryOut(ctx, p, o)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
}

func carryOut(ctx context.Context, p *Plane, o order) (a answer) {
	fail := func(err error) answer { a.Err = err.Error(); return a }
	if o.Policy != "" {
		rules, err := compileFor(o.Policy, o.Devices)
		if err != nil {
			return fail(err)
		}
		if o.Set != nil {
			o.Set.Rules = rules
		} else {
			if o.Update == nil {
				o.Update = new(dataplane.Change)
			}
			o.Update.Rules = rules
		}
	}
	if o.Set != nil {
		if err := p.Set(ctx, *o.Set); err != nil {
			return fail(err)
		}
	}
	if o.Update != nil {
		if err := p.Update(ctx, *o.Update); err != nil {
			return fail(err)
		}
	}
	s, err := p.Stats(ctx)
	if err != nil {
		return fail(err)
	}
	for k, v := range s.Peers {
		a.Keys, a.Peers = append(a.Keys, k), append(a.Peers, v)
	}
	a.Detail, a.UID = s.Detail, os.Getuid()
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			a.Caps = strings.TrimSpace(v)
		}
	}
	return a
}

// nobodyPlane is a plane in a process of the user nobody, without capabilities.
type nobodyPlane struct {
	enc *json.Encoder
	dec *json.Decoder
}

func startNobody(t *testing.T) *nobodyPlane {
	t.Helper()
	needNamespace(t)
	// The test binary is in a folder that nobody may not enter.
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	const path = "/run/plane.test"
	os.Remove(path)
	if err := os.WriteFile(path, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs", "--bounding-set", "-all", path)
	if exec.Command("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "true").Run() != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs setpriv(1) and the right to become nobody")
		}
		t.Skip("cannot become nobody here")
	}
	cmd.Env = append(os.Environ(), roleEnv+"=plane", "HOME=/")
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	return &nobodyPlane{json.NewEncoder(in), json.NewDecoder(out)}
}

func (n *nobodyPlane) do(t testing.TB, o order) answer {
	t.Helper()
	if err := n.enc.Encode(o); err != nil {
		t.Fatal(err)
	}
	var a answer
	if err := n.dec.Decode(&a); err != nil {
		t.Fatal(err)
	}
	if a.Err != "" {
		t.Fatal(a.Err)
	}
	return a
}
