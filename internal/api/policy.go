package api

import (
	"context"

	"vpnd/acl/language"
	vpnv1 "vpnd/proto/vpn/v1"
)

// policyServer decodes, calls and encodes for PolicyService.
type policyServer struct {
	vpnv1.UnimplementedPolicyServiceServer
	*Edge
}

// GetPolicy returns a version of the policy, by default the current one.
func (g policyServer) GetPolicy(_ context.Context, r *vpnv1.GetPolicyRequest) (*vpnv1.GetPolicyResponse, error) {
	p, err := g.s.Policy(r.GetVersion())
	if err != nil {
		return nil, err
	}
	return &vpnv1.GetPolicyResponse{Policy: protoPolicy(p, true), Pending: protoPending(g.s.View().Pending())}, nil
}

// CheckPolicy parses, compiles and tests a text without applying it.
func (g policyServer) CheckPolicy(_ context.Context, r *vpnv1.CheckPolicyRequest) (*vpnv1.CheckPolicyResponse, error) {
	problems, _, err := g.s.CheckPolicy(r.GetText())
	if err != nil {
		return nil, err
	}
	return &vpnv1.CheckPolicyResponse{Problems: protoProblems(problems)}, nil
}

// DiffPolicy tells what a text would change.
func (g policyServer) DiffPolicy(_ context.Context, r *vpnv1.DiffPolicyRequest) (*vpnv1.DiffPolicyResponse, error) {
	d, problems, err := g.s.DiffPolicy(r.GetText(), r.GetBase())
	if err != nil {
		return nil, err
	}
	out := &vpnv1.DiffPolicyResponse{Problems: protoProblems(problems)}
	if d != nil {
		out.Diff = protoDiff(d)
	}
	return out, nil
}

// ApplyPolicy makes a text the policy.
func (g policyServer) ApplyPolicy(ctx context.Context, r *vpnv1.ApplyPolicyRequest) (*vpnv1.ApplyPolicyResponse, error) {
	confirm, err := duration(r.GetConfirm(), "confirm")
	if err != nil {
		return nil, err
	}
	p, problems, closed, err := g.s.ApplyPolicy(ctx, r.GetText(), r.GetBase(), r.GetNote(), confirm, r.GetLocalTargets()...)
	if err != nil {
		return nil, err
	}
	out := &vpnv1.ApplyPolicyResponse{Problems: protoProblems(problems), Closed: protoClosed(closed)}
	if p != nil {
		out.Policy = protoPolicy(p, true)
		if w := g.s.View().Pending(); w != nil && w.Version == p.Version {
			out.Pending = protoPending(w)
		}
	}
	return out, nil
}

// ConfirmPolicy keeps what waits for a confirmation.
func (g policyServer) ConfirmPolicy(ctx context.Context, _ *vpnv1.ConfirmPolicyRequest) (*vpnv1.ConfirmPolicyResponse, error) {
	p, err := g.s.ConfirmPolicy(ctx)
	if err != nil {
		return nil, err
	}
	return &vpnv1.ConfirmPolicyResponse{Policy: protoPolicy(p, false)}, nil
}

// RevertPolicy takes back what waits for a confirmation.
func (g policyServer) RevertPolicy(ctx context.Context, _ *vpnv1.RevertPolicyRequest) (*vpnv1.RevertPolicyResponse, error) {
	p, closed, err := g.s.RevertPolicy(ctx)
	if err != nil {
		return nil, err
	}
	return &vpnv1.RevertPolicyResponse{Policy: protoPolicy(p, false), Closed: protoClosed(closed)}, nil
}

// ListPolicies returns all versions, newest first, without their texts.
func (g policyServer) ListPolicies(context.Context, *vpnv1.ListPoliciesRequest) (*vpnv1.ListPoliciesResponse, error) {
	v := g.s.View()
	out := &vpnv1.ListPoliciesResponse{Pending: protoPending(v.Pending())}
	for p := range v.Policies() {
		out.Policies = append(out.Policies, protoPolicy(p, false))
	}
	return out, nil
}

// ExplainPolicy tells whether a flow may pass now and why.
func (g policyServer) ExplainPolicy(ctx context.Context, r *vpnv1.ExplainPolicyRequest) (*vpnv1.ExplainPolicyResponse, error) {
	answers, remarks, err := g.s.ExplainPolicy(ctx, r.GetSource(), r.GetDestination(), r.GetPort())
	if err != nil {
		return nil, err
	}
	out := &vpnv1.ExplainPolicyResponse{Remarks: remarks}
	for _, f := range answers {
		out.Flows = append(out.Flows, protoExplanation(f))
	}
	return out, nil
}

// ListGroups returns the groups of the policy in force.
func (g policyServer) ListGroups(_ context.Context, r *vpnv1.ListGroupsRequest) (*vpnv1.ListGroupsResponse, error) {
	groups, err := g.s.Groups(r.GetName())
	if err != nil {
		return nil, err
	}
	out := &vpnv1.ListGroupsResponse{}
	for _, x := range groups {
		out.Groups = append(out.Groups, &vpnv1.Group{Name: x.Name, Members: x.Members, Users: x.Users})
	}
	return out, nil
}

// ListResources returns a resource of the policy in force, or all.
func (g policyServer) ListResources(_ context.Context, r *vpnv1.ListResourcesRequest) (*vpnv1.ListResourcesResponse, error) {
	list, err := g.s.Resources(r.GetName())
	if err != nil {
		return nil, err
	}
	out := &vpnv1.ListResourcesResponse{LocalTargets: g.s.LocalTargets()}
	for _, x := range list {
		p := &vpnv1.Resource{Name: x.Name, To: x.ToText(), Ports: language.SpansText(x.Ports), Title: x.Title, Note: x.Note, Sources: x.Sources, Proxy: x.ProxyV2}
		for _, a := range x.Addrs {
			p.Addresses = append(p.Addresses, a.String())
		}
		if x.Trouble != nil {
			p.Trouble = x.Trouble.Error()
		}
		out.Resources = append(out.Resources, p)
	}
	return out, nil
}

// CheckResource calls a resource from this gateway.
func (g policyServer) CheckResource(ctx context.Context, r *vpnv1.CheckResourceRequest) (*vpnv1.CheckResourceResponse, error) {
	answers, err := g.s.CheckResource(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	out := &vpnv1.CheckResourceResponse{}
	for _, x := range answers {
		out.Answers = append(out.Answers, &vpnv1.ResourceAnswer{Resource: x.Resource, Target: x.Target, Ok: x.OK, Text: x.Text})
	}
	return out, nil
}

// AllowLocalTargets lets resources name targets on this host.
func (g policyServer) AllowLocalTargets(_ context.Context, r *vpnv1.AllowLocalTargetsRequest) (*vpnv1.AllowLocalTargetsResponse, error) {
	if err := g.s.AllowLocalTargets(r.GetTargets()); err != nil {
		return nil, err
	}
	return &vpnv1.AllowLocalTargetsResponse{Targets: g.s.LocalTargets()}, nil
}
