//go:build !linux

package main

import (
	"context"

	vpnv1 "vpnd/proto/vpn/v1"
)

// A gateway runs on Linux alone, so that there is nothing to see here.

func rootLooks(context.Context, *app, *vpnv1.DiagnoseResponse) []*vpnv1.Finding { return nil }

func deadLooks(_ context.Context, a *app, err error) []*vpnv1.Finding {
	return []*vpnv1.Finding{{Code: "vpnd_down", Severity: "must", Subject: "vpnd", Text: err.Error(), Remedy: "service vpnd start"}}
}

func watchLine(*app, *vpnv1.DiagnoseResponse) (seen func() (from string, packets int), stop func()) {
	return func() (string, int) { return "", 0 }, func() {}
}
