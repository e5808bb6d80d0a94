package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	vpnv1 "vpnd/proto/vpn/v1"
)

// maxAnswer is the largest answer that is taken, in bytes: a list of a million devices.
const maxAnswer = 256 << 20

// patience is as long as a gateway could sensibly need to close what was revoked.
const patience = time.Minute

// silence is how long a daemon may say nothing before it is named.
const silence = 2500 * time.Millisecond

// client is the connection to the daemon. It is dialled by the first call. A unix socket
// needs no TLS: the kernel tells the daemon who is at the other end.
type client struct {
	path  string
	notef func(string, ...any) // a line on standard error

	mu   sync.Mutex
	conn *grpc.ClientConn
	dial error // why the last attempt to connect failed
}

func (c *client) connect() grpc.ClientConnInterface {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return c.conn
	}
	conn, err := grpc.NewClient("passthrough:///vpnd",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", c.path)
			c.mu.Lock()
			c.dial = err
			c.mu.Unlock()
			return conn, err
		}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: silence}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithUnaryInterceptor(c.explain))
	if err != nil { // only for options that contradict each other
		return brokenConn{err}
	}
	c.conn = conn
	return conn
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Close()
	}
}

func (c *client) users() vpnv1.UserServiceClient { return vpnv1.NewUserServiceClient(c.connect()) }
func (c *client) devices() vpnv1.DeviceServiceClient {
	return vpnv1.NewDeviceServiceClient(c.connect())
}
func (c *client) sessions() vpnv1.SessionServiceClient {
	return vpnv1.NewSessionServiceClient(c.connect())
}
func (c *client) policy() vpnv1.PolicyServiceClient { return vpnv1.NewPolicyServiceClient(c.connect()) }
func (c *client) gateway() vpnv1.GatewayServiceClient {
	return vpnv1.NewGatewayServiceClient(c.connect())
}
func (c *client) whois() vpnv1.WhoIsServiceClient { return vpnv1.NewWhoIsServiceClient(c.connect()) }

// explain turns what gRPC says into what a person can use, with an exit code.
func (c *client) explain(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	said := make(chan struct{})
	slow := time.AfterFunc(silence, func() {
		defer close(said)
		c.notef("vpnd at %s has not answered yet; waiting for at most %s", c.path, length(patience))
	})
	err := invoke(ctx, method, req, reply, conn, opts...)
	if !slow.Stop() {
		<-said // what comes next is written by nobody else at the same time
	}
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	switch s.Code() {
	case codes.NotFound:
		return &exitError{exitNotFound, refusalOf(s)}
	case codes.Aborted:
		return &exitError{exitConflict, refusalOf(s)}
	case codes.Unavailable:
		c.mu.Lock()
		dial := c.dial
		c.mu.Unlock()
		if dial != nil {
			return &exitError{exitUnreachable, unreachable(c.path, dial)}
		}
		if strings.Contains(s.Message(), "server preface") { // grpc-go's words for a peer that is silent from the start
			return &exitError{exitUnreachable, fmt.Errorf("vpnd at %s takes the connection and says nothing: it is stopped or hangs: look at its log, then restart it", c.path)}
		}
		return &exitError{exitUnreachable, fmt.Errorf("vpnd at %s: %w", c.path, refusalOf(s))}
	case codes.Unimplemented:
		return fmt.Errorf("this vpnd does not know the command (%s): it is of another version than vpnctl %s", s.Message(), version)
	case codes.DeadlineExceeded:
		return fmt.Errorf("vpnd at %s did not answer within %s: its log may tell why", c.path, length(patience))
	}
	return refusalOf(s)
}

// unreachable says why there is no connection, and what to do.
func unreachable(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("cannot reach vpnd at %s: permission denied: run vpnctl as root or as the user who runs vpnd", path)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("cannot reach vpnd at %s: there is no socket: start vpnd, or name its socket with --socket or VPNCTL_SOCKET", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("cannot reach vpnd at %s: it is not running: start it", path)
	}
	return fmt.Errorf("cannot reach vpnd at %s: %w", path, err)
}

// brokenConn fails every call.
type brokenConn struct{ err error }

func (b brokenConn) Invoke(context.Context, string, any, any, ...grpc.CallOption) error { return b.err }
func (b brokenConn) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, b.err
}
