package linux

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"vpnd/internal/dataplane"
)

const helperEnv = "VPND_TEST_HELPER"

// helper is what the test binary does as a process of its own.
func helper() int {
	var err error
	switch os.Getenv(helperEnv) {
	case "plane":
		err = helpPlane()
	case "advertise":
		err = advertise(os.Args[1])
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// helpPlane runs a plane with the State on standard input until it is killed.
func helpPlane() error {
	var s dataplane.State
	if err := json.NewDecoder(os.Stdin).Decode(&s); err != nil {
		return err
	}
	o := Options{OpenFilter: func(context.Context, FilterConfig) (PacketFilter, error) { return passFilter{}, nil }}
	o.GlobalForwarding6 = os.Getenv("VPND_TEST_GLOBAL6") != ""
	p, err := o.New(context.Background(), dataplane.Config{Interface: iface})
	if err != nil {
		return err
	}
	if err := p.Set(context.Background(), s); err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}

// startPlane starts helpPlane and returns what kills it with SIGKILL.
func (b *bed) startPlane(s dataplane.State, env ...string) (kill func()) {
	b.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	c := exec.Command(exe)
	c.Env = append(append(os.Environ(), helperEnv+"=plane"), env...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.t.Fatal(err)
	}
	kill = func() { c.Process.Kill(); c.Wait() }
	b.t.Cleanup(kill)
	if err := json.NewEncoder(in).Encode(s); err != nil {
		b.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "ready\n" {
		rest, _ := io.ReadAll(out)
		b.t.Fatalf("the plane's process says %q %s, %v", line, rest, err)
	}
	return kill
}

// advertise sends one router advertisement (RFC 4861, 4.2) on an interface: a default
// router for half an hour.
func advertise(name string) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		return err
	}
	if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, name); err != nil {
		return err
	}
	ra := make([]byte, 16)
	ra[0], ra[4], ra[6], ra[7] = 134, 64, 1800>>8, 1800&0xff
	return unix.Sendto(fd, ra, 0, &unix.SockaddrInet6{Addr: [16]byte{0: 0xff, 1: 2, 15: 1}})
}

func (b *bed) advertise() {
	b.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	c := exec.Command("ip", "netns", "exec", b.resource, exe, "eth0")
	c.Env = append(os.Environ(), helperEnv+"=advertise")
	if out, err := c.CombinedOutput(); err != nil {
		b.t.Fatalf("sending a router advertisement: %v %s", err, out)
	}
}
