package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	vpnv1 "vpnd/proto/vpn/v1"
)

// caller is who sends a request.
type caller struct {
	User    string
	Device  string
	Address netip.Addr
	Expires time.Time // of the session; zero: none is live
}

// whois asks vpnd who has an address.
type whois interface {
	ask(ctx context.Context, a netip.Addr) (caller, error)
}

// errStranger means that an address is no device's.
var errStranger = errors.New("this address is no device's")

type whoisClient struct {
	conn *grpc.ClientConn
	rpc  vpnv1.WhoIsServiceClient
}

// dialWhois needs no vpnd yet: gRPC connects at the first question, and again after
// vpnd was restarted.
func dialWhois(path string) (*whoisClient, error) {
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second}}))
	if err != nil {
		return nil, fmt.Errorf("--whois %s: %w", path, err)
	}
	return &whoisClient{conn: conn, rpc: vpnv1.NewWhoIsServiceClient(conn)}, nil
}

func (w *whoisClient) Close() error { return w.conn.Close() }

// ask waits a little for a vpnd that is just being restarted.
func (w *whoisClient) ask(ctx context.Context, a netip.Addr) (caller, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	r, err := w.rpc.WhoIs(ctx, &vpnv1.WhoIsRequest{Address: a.String()}, grpc.WaitForReady(true))
	if status.Code(err) == codes.NotFound {
		return caller{}, errStranger
	}
	if err != nil {
		return caller{}, fmt.Errorf("asking vpnd who has %s: %w", a, err)
	}
	c := caller{User: r.GetUser(), Device: r.GetDevice(), Address: a}
	if t := r.GetSessionExpiresAt(); t != nil {
		c.Expires = t.AsTime()
	}
	return c, nil
}
