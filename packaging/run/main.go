// Command run is `make run`: it starts vpnd and the protected app beside it, invites the
// first person, and stops both on Ctrl-C. A service manager does the same with the units
// in packaging/.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	vpnv1 "vpnd/proto/vpn/v1"
)

// nobody is the user and group of no one, as which the app runs when root starts it
// (Debian's base-passwd).
const nobody = 65534

func main() {
	bin := flag.String("bin", "bin", "folder of vpnd, vpnctl and protected-app")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *bin)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "make run: %v\n", err)
		os.Exit(1)
	}
}

// places are where the two programs keep and offer what they share.
type places struct {
	control, whois  string // vpnd's sockets
	appSock, appDir string // the app's socket (netstack plane) and files
}

func findPlaces(root bool) (places, error) {
	if root {
		p := places{control: "/run/vpnd/control.sock", appSock: "/run/protected-app/app.sock", appDir: "/var/lib/protected-app"}
		if c := os.Getenv("VPND_CONTROL"); c != "" {
			p.control = c
		}
		if d := os.Getenv("PROTECTED_APP_DATA"); d != "" {
			p.appDir = d
		}
		if s := os.Getenv("VPND_APP"); s != "" {
			p.appSock = s
		}
		for _, dir := range []string{filepath.Dir(p.appSock), p.appDir} {
			if err := giveFolder(dir, nobody); err != nil {
				return p, err
			}
		}
		p.whois = filepath.Join(filepath.Dir(p.control), "whois.sock")
		return p, nil
	}
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home, err := os.UserHomeDir()
		if err != nil {
			return places{}, err
		}
		state = filepath.Join(home, ".local/state")
	}
	data := filepath.Join(state, "vpnd")
	if d := os.Getenv("VPND_DATA"); d != "" {
		data = d
	}
	p := places{control: filepath.Join(data, "control.sock"), appSock: filepath.Join(data, "app.sock"), appDir: filepath.Join(state, "protected-app")}
	if c := os.Getenv("VPND_CONTROL"); c != "" {
		p.control = c
	}
	if d := os.Getenv("PROTECTED_APP_DATA"); d != "" {
		p.appDir = d
	}
	p.whois = filepath.Join(filepath.Dir(p.control), "whois.sock")
	return p, nil
}

// giveFolder makes dir, or takes it if it is empty, and gives it to a user. A folder that
// holds somebody else's things (/run, say, of VPND_APP=/run/app.sock) is not given away.
func giveFolder(dir string, uid int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making a folder for the app: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("looking at the app's folder: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == uid {
		return nil
	}
	things, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("looking at the app's folder: %w", err)
	}
	if len(things) > 0 {
		return fmt.Errorf("the folder %s is not the app's and is not empty: name another one with VPND_APP or PROTECTED_APP_DATA, or give it to uid %d yourself", dir, uid)
	}
	if err := os.Chown(dir, uid, uid); err != nil {
		return fmt.Errorf("giving the app its folder: %w", err)
	}
	return nil
}

func run(ctx context.Context, bin string) error {
	root := os.Geteuid() == 0
	p, err := findPlaces(root)
	if err != nil {
		return err
	}
	args := []string{"--control", p.control, "--app", p.appSock}
	if root {
		args = append(args, "--whois-group", strconv.Itoa(nobody))
	}
	vpnd := command(filepath.Join(bin, "vpnd"), args...)
	if err := vpnd.Start(); err != nil {
		return fmt.Errorf("starting vpnd: %w", err)
	}
	gone := make(chan error, 2)
	go func() { gone <- ended("vpnd", vpnd.Wait()) }()
	running := []*exec.Cmd{vpnd}
	wait := 1
	stop := func() {
		for _, c := range running {
			c.Process.Signal(syscall.SIGTERM) // one that has gone already needs none
		}
		for ; wait > 0; wait-- {
			<-gone
		}
	}
	early := func(err error) error { wait--; stop(); return err }

	api, err := connect(p.control)
	if err != nil {
		stop()
		return err
	}
	status, err := ready(ctx, api, gone)
	if err != nil {
		if errors.Is(err, errGone) {
			return early(err)
		}
		stop()
		return err
	}
	app, err := startApp(bin, p, status.GetPlane() == "linux", root)
	if err != nil {
		stop()
		return err
	}
	running = append(running, app)
	wait++
	go func() { gone <- ended("protected-app", app.Wait()) }()

	if err := invite(ctx, bin, p.control, status.GetUsers() == 0); err != nil {
		stop()
		return err
	}
	select {
	case <-ctx.Done():
		stop()
		return nil
	case err := <-gone:
		return early(err)
	}
}

// command gives a child a process group of its own, so that Ctrl-C reaches it once,
// through us, and in order.
func command(path string, args ...string) *exec.Cmd {
	c := exec.Command(path, args...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return c
}

var errGone = errors.New("it has ended")

func ended(name string, err error) error {
	if err == nil {
		return fmt.Errorf("%s: %w", name, errGone)
	}
	return fmt.Errorf("%s: %w: %v", name, errGone, err)
}

func connect(control string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix:"+control, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// ready waits until vpnd answers.
func ready(ctx context.Context, api *grpc.ClientConn, gone <-chan error) (*vpnv1.GetStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		s, err := vpnv1.NewGatewayServiceClient(api).GetStatus(ctx, &vpnv1.GetStatusRequest{})
		if err == nil {
			return s, nil
		}
		select {
		case err := <-gone:
			return nil, err
		case <-ctx.Done():
			return nil, fmt.Errorf("vpnd does not answer: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func startApp(bin string, p places, linux, root bool) (*exec.Cmd, error) {
	args := []string{"--whois", p.whois, "--data", p.appDir}
	if linux {
		name := os.Getenv("VPND_INTERFACE")
		if name == "" {
			name = "vpn0"
		}
		args = append(args, "--interface", name)
	} else {
		args = append(args, "--socket", p.appSock)
	}
	if port := os.Getenv("VPND_APP_PORT"); port != "" {
		args = append(args, "--port", port)
	}
	// Opened here and run by its descriptor: the repository may lie where only root looks.
	f, err := os.Open(filepath.Join(bin, "protected-app"))
	if err != nil {
		return nil, fmt.Errorf("starting the protected app: %w", err)
	}
	defer f.Close()
	c := command("/proc/self/fd/3", args...)
	c.Args[0] = "protected-app"
	c.ExtraFiles = []*os.File{f}
	c.Dir = "/"
	if root {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		c.Env = []string{"PATH=/usr/bin:/bin"}
	}
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("starting the protected app: %w", err)
	}
	return c, nil
}

// invite adds the first user, or says how to invite the next.
func invite(ctx context.Context, bin, control string, first bool) error {
	vpnctl := filepath.Join(bin, "vpnctl")
	call := vpnctl
	if os.Getenv("VPND_CONTROL")+os.Getenv("VPND_DATA") != "" { // not where vpnctl looks by itself
		call = "VPNCTL_SOCKET=" + control + " " + vpnctl
	}
	if !first {
		fmt.Printf("\nInvite the next person:  %s user add NAME\nStop with Ctrl-C.\n", call)
		return nil
	}
	fmt.Println("\nThe first person's invitation:")
	c := exec.CommandContext(ctx, vpnctl, "--socket", control, "user", "add", firstName())
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("inviting the first person: %w", err)
	}
	fmt.Printf("\nInvite others with:  %s user add NAME\nStop with Ctrl-C.\n", call)
	return nil
}

// firstName is the name of who runs this, where that is a person's.
func firstName() string {
	name := os.Getenv("SUDO_USER")
	if u, err := user.Current(); name == "" && err == nil {
		name = u.Username
	}
	name = strings.ToLower(name)
	if name == "" || name == "root" || name == "nobody" || !regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,31}$`).MatchString(name) {
		return "alice"
	}
	return name
}
