package api

import (
	"vpnd/acl/review"
	"vpnd/internal/control"
	"vpnd/internal/words"
	"vpnd/peers"
	vpnv1 "vpnd/proto/vpn/v1"
)

// The bounds of a diff as it is told: a change of everything for everybody must still be
// one message that any client takes (4 MiB by gRPC's default) and somebody can read.
const (
	maxChanges     = 1000    // entries
	maxChangeNames = 100     // sources, destinations or ports of one
	maxDiffBytes   = 2 << 20 // of all names
)

func protoPending(w *peers.Pending) *vpnv1.PendingPolicy {
	if w == nil {
		return nil
	}
	return &vpnv1.PendingPolicy{Version: w.Version, Back: w.Back, Until: timestamp(w.Until), AppliedBy: w.By}
}

func protoDiff(d *control.PolicyDiff) *vpnv1.PolicyDiff {
	out := &vpnv1.PolicyDiff{Base: d.Base, Losing: int32(d.Losing), Gaining: int32(d.Gaining)}
	for _, m := range d.Moves[:min(len(d.Moves), maxChanges)] {
		out.Moves = append(out.Moves, &vpnv1.ResourceMove{Name: m.Name, Before: m.Before, After: m.After})
	}
	size := 0
	for i, c := range d.Changes {
		x := &vpnv1.PolicyChange{
			Effect: c.Effect(), Before: c.Before, After: c.After, Losing: int32(c.Losing), Gaining: int32(c.Gaining),
		}
		x.Sources, x.MoreSources = capped(placeNames(c.Sources))
		x.Destinations, x.MoreDestinations = capped(placeNames(c.Destinations))
		x.Ports, x.MorePorts = capped(c.Spans)
		for _, list := range [][]string{x.Sources, x.Destinations, x.Ports, {x.Before, x.After}} {
			for _, s := range list {
				size += len(s)
			}
		}
		if i == maxChanges || size > maxDiffBytes {
			out.More = int32(len(d.Changes) - i)
			break
		}
		out.Changes = append(out.Changes, x)
	}
	return out
}

func placeNames(places []review.Place) []string {
	out := make([]string, len(places))
	for i, p := range places {
		out[i] = p.Name
	}
	return out
}

// capped is the beginning of a list, and how many were left out.
func capped(list []string) ([]string, int32) {
	if len(list) <= maxChangeNames {
		return list, 0
	}
	return list[:maxChangeNames], int32(len(list) - maxChangeNames)
}

func protoExplanation(f control.FlowAnswer) *vpnv1.FlowExplanation {
	out := &vpnv1.FlowExplanation{
		Source: f.Source, SourceAddress: f.Src.String(), Destination: f.Destination, DestinationAddress: f.Dst.String(),
		Port: f.Question.String(), Allowed: f.Allow, Reason: f.Word, Message: words.English().With("explain."+f.Why.Code, f.Why.Params), Until: timestamp(f.Until),
		Grants: protoSteps(f.Covering), Others: protoSteps(f.Others), PlaneError: f.PlaneErr, Disagreement: f.Disagree(),
	}
	if f.Asked {
		out.PlanePermits = &f.Permits
	}
	return out
}

func protoSteps(list []review.Step) []*vpnv1.ExplainedGrant {
	out := make([]*vpnv1.ExplainedGrant, 0, len(list))
	for _, s := range list[:min(len(list), maxChangeNames)] {
		out = append(out, &vpnv1.ExplainedGrant{
			Line: int32(s.Grant.Line), Text: s.Grant.Text, Note: s.Grant.Note, From: s.From, To: s.To, Ports: s.Ports,
			Allows: s.Verdict.Allow, Reason: s.Verdict.Reason.Word(), Until: timestamp(s.Verdict.Until),
		})
	}
	return out
}
