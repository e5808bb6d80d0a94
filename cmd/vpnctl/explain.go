package main

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	vpnv1 "vpnd/proto/vpn/v1"
)

type policyExplainCmd struct {
	Source      string `arg:"" help:"Who begins: USER/DEVICE, a user with one device, a host of the policy, or an address." predictor:"device"`
	Destination string `arg:"" help:"Where to, as the policy's tests write it: db:5432, bob/phone:22, udp:db:53, icmp:db." predictor:"device"`
	Port        string `arg:"" optional:"" help:"Protocol and port as a grant writes them (tcp:5432, icmp), if the destination has none."`
}

// Help is shown by --help.
func (policyExplainCmd) Help() string {
	return `It says whether the flow may pass now, by which grant in which line of the policy, through which group or tag, until when, or what is missing: a fresh code, the hour, a grant. Then it asks the data plane (the kernel, where that filters) whether it lets the same flow pass. If the two disagree for longer than a moment, that is said aloud, and the exit code is 7; otherwise it is 0, allowed or not.`
}

func (c *policyExplainCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.policy().ExplainPolicy(ctx, &vpnv1.ExplainPolicyRequest{Source: c.Source, Destination: c.Destination, Port: c.Port})
	if err != nil {
		return err
	}
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	}
	disagree := false
	for i, f := range r.Flows {
		if !a.json {
			if i > 0 {
				a.write("\n")
			}
			a.explain(f)
		}
		disagree = disagree || f.Disagreement
	}
	if !a.json {
		for _, m := range r.Remarks {
			a.notef("%s", m)
		}
	}
	if disagree {
		return &exitError{exitDisagree, fmt.Errorf("policy and data plane disagree: look at vpnctl status and at vpnd's log; starting vpnd again sets the data plane anew")}
	}
	return nil
}

// explain prints one flow: the answer first, then its reasons.
func (a *app) explain(f *vpnv1.FlowExplanation) {
	a.write(a.paint(bold, clean(fmt.Sprintf("%s to %s %s", named(f.Source, f.SourceAddress), named(f.Destination, f.DestinationAddress), f.Port))) + "\n")
	answer := a.paint(bad, "denied")
	if f.Allowed {
		answer = a.paint(good, "allowed")
		if f.Until != nil {
			answer += " until " + a.when(f.Until)
		}
	}
	a.write(answer + "\n")
	if f.Reason != "allowed" || len(f.Grants) == 0 {
		message := f.Message
		if f.Until != nil && !f.Allowed {
			message += " It opens " + a.when(f.Until) + "."
		}
		a.printf("%s\n", message)
	}
	a.write("\n")
	var t facts
	for i, g := range f.Grants {
		name := "also covered by"
		if i == 0 {
			name = "by"
			if !f.Allowed {
				name = "would be by"
			}
		}
		a.grant(&t, name, g)
		if i > 0 {
			state := map[bool]string{true: "allows it", false: reasonText(g.Reason)}[g.Allows]
			t.add("", state+a.end(g.Allows, g.Until))
		}
	}
	for _, g := range f.Others {
		a.grant(&t, "not covered by", g)
		if !strings.Contains(g.Text, g.Ports) {
			t.add("", "which grants "+g.Ports)
		}
	}
	switch {
	case f.PlaneError != "":
		t.addStyled("data plane", "cannot say: "+f.PlaneError, warn)
	case f.Disagreement && f.GetPlanePermits():
		t.addStyled("data plane", "LETS IT PASS, WHICH THE POLICY DENIES", bad)
	case f.Disagreement:
		t.addStyled("data plane", "DOES NOT LET IT PASS, WHICH THE POLICY ALLOWS", bad)
	case f.GetPlanePermits():
		t.addStyled("data plane", "lets it pass, too", good)
	default:
		t.add("data plane", "does not let it pass, either")
	}
	t.draw(a.ui)
}

// grant adds what a grant says and how it comes to the two ends.
func (a *app) grant(t *facts, name string, g *vpnv1.ExplainedGrant) {
	t.add(name, fmt.Sprintf("line %d: %s", g.Line, g.Text))
	if g.From != "" || g.To != "" {
		t.add("", fmt.Sprintf("from %s, to %s", g.From, g.To))
	}
	if g.Note != "" {
		t.add("", "note: "+g.Note)
	}
}

// end says when what holds now ends.
func (a *app) end(allows bool, until *timestamppb.Timestamp) string {
	switch {
	case until == nil:
		return ""
	case allows:
		return " until " + a.when(until)
	}
	return ", again from " + a.when(until)
}

// reasonText says a reason's word to people.
func reasonText(word string) string {
	switch word {
	case "no_session":
		return "once a code is given"
	case "stale_code":
		return "once a fresh code is given"
	case "outside_time":
		return "at another time only"
	case "peer_offline":
		return "once the device at the other end is signed in"
	}
	return word
}

// named is a name with its address, unless it is one.
func named(name, address string) string {
	if name == address {
		return name
	}
	return fmt.Sprintf("%s (%s)", name, address)
}
