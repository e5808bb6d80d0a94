package main

import (
	"context"
	"fmt"
	"strings"

	vpnv1 "vpnd/proto/vpn/v1"
)

type policyDiffCmd struct {
	policyFile
	Base uint64 `help:"Compare with this version; the one in force by default." placeholder:"VERSION"`
}

// Help is shown by --help.
func (policyDiffCmd) Help() string {
	return `It compares what two policies do, not how they are written: for every device, every address and every port, also inside of networks and ranges. Nothing is applied. With -o json it is for a review: "effect" is gains, loses or changes, and "losing" counts the open sessions that lose something at once.`
}

func (c *policyDiffCmd) Run(ctx context.Context, a *app) error {
	policy, err := c.read(a)
	if err != nil {
		return err
	}
	r, err := a.api.policy().DiffPolicy(ctx, &vpnv1.DiffPolicyRequest{Text: policy, Base: c.Base})
	if err != nil {
		return err
	}
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		a.problems(c.File, r.Problems)
	}
	if n := faults(r.Problems); n > 0 || r.Diff == nil {
		return fmt.Errorf("%s has %s", c.File, number(n, "fault"))
	}
	if !a.json {
		a.write(diffText(r.Diff, a.paint))
	}
	return nil
}

// How much of a change is shown in a line.
const (
	shownNames = 6
	shownPorts = 10
)

// diffText writes one line for each change: who gains or loses what, and for how many
// people that is now.
func diffText(d *vpnv1.PolicyDiff, paint func(style, s string) string) string {
	var b strings.Builder
	for _, m := range d.Moves {
		b.WriteString(paint(bold, clean(m.Name)) + ": " + paint(warn, "leads") + " to " + clean(m.After) + " instead of " + clean(m.Before) + "\n")
	}
	if len(d.Changes) == 0 && d.More == 0 {
		return b.String() + "Nobody gains or loses anything.\n"
	}
	for _, c := range d.Changes {
		who := someOf(c.Sources, int(c.MoreSources), shownNames)
		many := len(c.Sources)+int(c.MoreSources) != 1
		what := clean(reached(c))
		switch c.Effect {
		case "gains":
			what = paint(good, verb("gain", many)) + " " + what
			if c.After != "always" {
				what += " (" + clean(c.After) + ")"
			}
		case "loses":
			what = paint(bad, verb("lose", many)) + " " + what
		default:
			what += " " + paint(warn, "changes") + " from " + condition(c.Before) + " to " + condition(c.After)
		}
		var now []string
		if c.Losing > 0 {
			now = append(now, fmt.Sprintf("%s %s it now", number(int(c.Losing), "open session"), verb("lose", c.Losing > 1)))
		}
		if c.Gaining > 0 {
			now = append(now, fmt.Sprintf("%s %s it now", number(int(c.Gaining), "open session"), verb("gain", c.Gaining > 1)))
		}
		b.WriteString(paint(bold, clean(who)) + ": " + strings.Join(append([]string{what}, now...), "; ") + "\n")
	}
	if d.More > 0 {
		fmt.Fprintf(&b, "… and %s more.\n", number(int(d.More), "change"))
	}
	if len(d.Changes)+int(d.More) > 1 && d.Losing+d.Gaining > 0 {
		fmt.Fprintf(&b, "In all, %s %s something now, and %s %s something.\n", number(int(d.Losing), "open session"), verb("lose", d.Losing != 1),
			fmt.Sprint(d.Gaining), verb("gain", d.Gaining != 1))
	}
	return b.String()
}

func verb(word string, many bool) string {
	if many {
		return word
	}
	return word + "s"
}

// condition says under what a grant holds.
func condition(s string) string {
	if s == "always" {
		return "any session"
	}
	return clean(s)
}

// reached is what a change is about: "db:5432", as "policy explain" takes it, or with more
// than one end or protocol "icmp, udp:53 on db, wiki".
func reached(c *vpnv1.PolicyChange) string {
	if len(c.Destinations) == 1 && c.MoreDestinations+c.MorePorts == 0 && len(c.Ports) <= shownPorts {
		var tcp []string
		for _, p := range c.Ports {
			if port, ok := strings.CutPrefix(p, "tcp:"); ok && port != "*" {
				tcp = append(tcp, port)
			}
		}
		if len(tcp) == len(c.Ports) && len(tcp) > 0 {
			host := c.Destinations[0]
			if strings.Count(host, ":") > 1 {
				host = "[" + host + "]"
			}
			return host + ":" + strings.Join(tcp, ",")
		}
	}
	ports := someOf(c.Ports, int(c.MorePorts), shownPorts)
	if ports == "*" {
		ports = "everything"
	}
	return ports + " on " + someOf(c.Destinations, int(c.MoreDestinations), shownNames)
}

// someOf lists at most so many, and says how many there are more.
func someOf(list []string, more, most int) string {
	if len(list) > most {
		more += len(list) - most
		list = list[:most]
	}
	if more > 0 {
		return fmt.Sprintf("%s and %d more", joined(list), more)
	}
	return joined(list)
}
