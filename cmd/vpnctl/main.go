// Command vpnctl administers a vpnd: people, devices, sessions, policy. It speaks gRPC to
// the daemon's unix socket and holds no state of its own.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, system{
		args: os.Args[1:], stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		tty: openTerminal, getenv: os.Getenv, now: time.Now, uid: os.Getuid(),
	})
	stop()
	os.Exit(code)
}

// system is what the program sees of the world around it.
type system struct {
	args           []string // without the program's name
	stdin          io.Reader
	stdout, stderr io.Writer
	tty            func() (io.ReadWriteCloser, error) // the terminal, whatever is redirected
	getenv         func(string) string
	now            func() time.Time
	uid            int
}

func openTerminal() (io.ReadWriteCloser, error) { return os.OpenFile("/dev/tty", os.O_RDWR, 0) }
