package main

import (
	"context"
	"fmt"
	"strings"

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
	for detail := range strings.SplitSeq(r.PlaneDetail, "; ") {
		f.add("", detail)
	}
	f.add("people", fmt.Sprintf("%s, %s, %s signed in", number(int(r.Users), "user"), number(int(r.Devices), "device"), nobodyOr(r.Sessions)))
	f.add("policy", fmt.Sprintf("version %d", r.PolicyVersion))
	if w := r.PendingPolicy; w != nil {
		f.addStyled("", fmt.Sprintf("to be confirmed by %s until %s, else version %d comes back", w.AppliedBy, absolute(w.Until.AsTime()), w.Back), warn)
	}
	f.add("clients dial", s.GetEndpoint())
	f.add("public key", r.PublicKey)
	f.add("network", joined(s.GetNetwork()))
	f.add("routes", joined(orNone(s.GetRoutes())))
	f.add("enrolment", s.GetUrl())
	print := []string{r.CaFingerprint} // for a program in one piece
	if a.columns > 0 {
		print = fingerprint(r.CaFingerprint)
	}
	f.add("CA SHA-256", print[0])
	for _, rest := range print[1:] {
		f.add("", rest)
	}
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

// nobodyOr is a number of people.
func nobodyOr(n int32) string {
	if n == 0 {
		return "nobody"
	}
	return fmt.Sprint(n)
}
