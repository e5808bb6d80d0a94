package main

import (
	"context"
	"fmt"

	vpnv1 "vpnd/proto/vpn/v1"
)

type statusCmd struct{}

func (c *statusCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.gateway().GetStatus(ctx, &vpnv1.GetStatusRequest{})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	s := r.GetSettings()
	var f facts
	f.add("vpnd", fmt.Sprintf("%s, started %s", r.Version, a.relative(r.StartedAt.AsTime())))
	f.add("node", r.Node)
	role := good
	if r.Role == "no leader" {
		role = bad
	}
	f.addStyled("role", r.Role, role)
	applied, style := "the data plane has it", plain
	if r.AppliedIndex < r.Index {
		applied, style = fmt.Sprintf("the data plane is at %d", r.AppliedIndex), warn
	}
	f.addStyled("state", fmt.Sprintf("index %d, %s", r.Index, applied), style)
	f.add("plane", r.Plane)
	f.add("", r.PlaneDetail)
	f.add("people", fmt.Sprintf("%s, %s, %d signed in", number(int(r.Users), "user"), number(int(r.Devices), "device"), r.Sessions))
	f.add("policy", fmt.Sprintf("version %d", r.PolicyVersion))
	if w := r.PendingPolicy; w != nil {
		f.addStyled("", fmt.Sprintf("to be confirmed by %s until %s, else version %d comes back", w.AppliedBy, absolute(w.Until.AsTime()), w.Back), warn)
	}
	f.add("clients dial", s.GetEndpoint())
	f.add("public key", r.PublicKey)
	f.add("network", joined(s.GetNetwork()))
	f.add("routes", orNone(s.GetRoutes()))
	f.add("enrolment", s.GetUrl())
	f.add("CA SHA-256", r.CaFingerprint)
	f.add("sign-in", r.TunnelUrl+" (inside the tunnel)")
	f.draw(a.ui)
	if behind := r.StateTime.AsTime().Sub(a.now()); behind.Seconds() > 5 {
		a.notef("this host's clock lies %s behind vpnd's time, and nobody can sign in: set it right, or see vpnctl time reset --help", length(behind))
	}
	for _, w := range r.Complaints {
		a.notef("%s", w)
	}
	return nil
}
