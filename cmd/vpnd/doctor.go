package main

import (
	"context"
	"os"
	"time"

	"vpnd/internal/doctor"
	"vpnd/internal/owner"
	vpnv1 "vpnd/proto/vpn/v1"
)

// diagnose looks at this gateway's installation, for vpnctl doctor.
func (d *Daemon) diagnose(ctx context.Context, r *vpnv1.DiagnoseRequest) (*vpnv1.DiagnoseResponse, error) {
	g := d.patient(ctx)
	out := &vpnv1.DiagnoseResponse{Outside: g.LastOutside(), WireguardPort: uint32(d.flags.wireguard.Port()), PortalPort: uint32(d.planeConfig().Portal)}
	for _, n := range g.Settings.Network {
		out.Network = append(out.Network, n.String())
	}
	if g.Plane.Plane == "linux" {
		out.Interface = d.flags.Interface
	}
	if r.GetOutsideOnly() {
		out.Findings = g.Outside(ctx)
		return out, nil
	}
	out.Findings = g.Look(ctx)
	return out, nil
}

// patient is what the doctor looks at.
func (d *Daemon) patient(ctx context.Context) *doctor.Gateway {
	st := d.service.Status(ctx)
	g := &doctor.Gateway{
		Now: time.Now(), View: d.store.State().View(), Leader: st.Leader, Applied: st.Applied, Rules: d.rec.Rules(),
		Ignored: st.Ignored, Spellings: st.Spellings,
		Interface: d.flags.Interface, WireGuard: d.flags.wireguard, Data: d.flags.Data, Files: d.checkFiles(), OwnCA: d.flags.Cert == "" && (d.acme == nil || d.acme.Certificate(nil) == nil), Authority: d.authority(),
	}
	g.Settings, _ = g.View.Settings()
	g.SelfTest = d.selfTest
	_, g.Given = d.flags.from["endpoint"]
	g.Plane, g.PlaneErr = d.Stats(ctx)
	g.Cert, g.CertErr = d.leaf()
	return g
}

// checkFiles looks again, as at the start, at whose the folders and keys are.
func (d *Daemon) checkFiles() (out []error) {
	who := owner.Self()
	_, err := os.Stat(d.flags.Data)
	if err == nil { // a look makes nothing that is missing
		err = who.Folder(d.flags.Data, "the data folder", 0o700)
	}
	errs := []error{err}
	_, err = who.Read(d.flags.SealingKey, "the sealing key", owner.Access{}, 1<<20)
	errs = append(errs, err)
	if d.flags.Key != "" {
		_, err = who.Read(d.flags.Key, "the certificate's key", owner.Access{Group: "ssl-cert"}, 1<<20)
		errs = append(errs, err)
	}
	for _, err := range errs {
		if err != nil {
			out = append(out, err)
		}
	}
	return out
}
