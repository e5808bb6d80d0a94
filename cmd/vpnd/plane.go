package main

import (
	"context"
	"fmt"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux"
	"vpnd/internal/dataplane/netstack"
)

// choosePlane answers --plane: the plane's name and why, without changing anything.
func choosePlane(ctx context.Context, want string, c dataplane.Config) (name, why string, err error) {
	if want == "netstack" {
		return want, "asked for by --plane", nil
	}
	err = linux.Probe(ctx, c)
	switch {
	case err == nil && want == "linux":
		return "linux", "asked for by --plane", nil
	case err == nil:
		return "linux", "this host allows it", nil
	case want == "linux":
		return "", "", fmt.Errorf("--plane linux is not possible here: %w; use --plane netstack, which needs nothing", err)
	}
	return "netstack", err.Error(), nil
}

func openPlane(ctx context.Context, name string, c dataplane.Config) (dataplane.Plane, error) {
	if name == "linux" {
		return linux.New(ctx, c)
	}
	return netstack.New(ctx, c)
}

// precheckPlane says what keeps the gateway from starting on this host; it changes nothing.
func precheckPlane(ctx context.Context, name string, c dataplane.Config, g dataplane.Gateway) error {
	if name == "linux" {
		return linux.Precheck(ctx, c, g)
	}
	return checkWireGuard(g.Listen)
}
