package control

import (
	"context"

	vpnv1 "vpnd/proto/vpn/v1"
)

// policyServer decodes, calls and encodes for PolicyService.
type policyServer struct {
	vpnv1.UnimplementedPolicyServiceServer
	s *Service
}

// GetPolicy returns a version of the policy, by default the current one.
func (g policyServer) GetPolicy(_ context.Context, r *vpnv1.GetPolicyRequest) (*vpnv1.GetPolicyResponse, error) {
	p, err := g.s.Policy(r.GetVersion())
	if err != nil {
		return nil, err
	}
	return &vpnv1.GetPolicyResponse{Policy: protoPolicy(p, true)}, nil
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
	p, problems, closed, err := g.s.ApplyPolicy(ctx, r.GetText(), r.GetBase(), r.GetNote())
	if err != nil {
		return nil, err
	}
	out := &vpnv1.ApplyPolicyResponse{Problems: protoProblems(problems), Closed: protoClosed(closed)}
	if p != nil {
		out.Policy = protoPolicy(p, true)
	}
	return out, nil
}

// ListPolicies returns all versions, newest first, without their texts.
func (g policyServer) ListPolicies(context.Context, *vpnv1.ListPoliciesRequest) (*vpnv1.ListPoliciesResponse, error) {
	out := &vpnv1.ListPoliciesResponse{}
	for p := range g.s.view().Policies() {
		out.Policies = append(out.Policies, protoPolicy(p, false))
	}
	return out, nil
}
