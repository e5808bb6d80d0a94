package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"vpnd/acl/language"
	"vpnd/internal/locals"
	vpnv1 "vpnd/proto/vpn/v1"
)

type resourceCmd struct {
	Ls    resourceLsCmd    `cmd:"" help:"List the published resources." aliases:"list"`
	Show  resourceShowCmd  `cmd:"" help:"Show a resource: where it is, who reaches it."`
	Add   resourceAddCmd   `cmd:"" help:"Publish something: give it a name, an address inside of the tunnel, and to people."`
	Rm    resourceRmCmd    `cmd:"" help:"Take a resource out of the policy, and out of its grants." aliases:"remove"`
	Check resourceCheckCmd `cmd:"" help:"Call a resource from the gateway, and say what answers."`
	Allow resourceAllowCmd `cmd:"" help:"Let resources name something on the gateway's own host."`
}

type resourceLsCmd struct{}

func (c *resourceLsCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.policy().ListResources(ctx, &vpnv1.ListResourcesRequest{})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	if len(r.Resources) == 0 {
		a.notef("nothing is published yet: vpnctl resource add NAME HOST:PORT --for group:NAME")
		return nil
	}
	t := newTable("RESOURCE", "ADDRESS", "PORTS", "LEADS TO", "FOR")
	for _, x := range r.Resources {
		address := ""
		if len(x.Addresses) > 0 {
			address = x.Addresses[0]
		}
		t.add(cell{x.Name, bold}, text(address), text(x.Ports), text(x.To), text(joined(x.Sources)))
	}
	t.draw(a.ui)
	for _, x := range r.Resources {
		if x.Trouble != "" {
			a.notef("%s: %s", x.Name, x.Trouble)
		}
	}
	return nil
}

type resourceShowCmd struct {
	Name string `arg:"" help:"Which." predictor:"resource"`
}

func (c *resourceShowCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.policy().ListResources(ctx, &vpnv1.ListResourcesRequest{Name: c.Name})
	if err != nil {
		return err
	}
	x, err := one(r)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(x)
	}
	var f facts
	f.addStyled("resource", x.Name, bold)
	f.add("title", x.Title)
	f.add("addresses", joined(x.Addresses))
	f.add("ports", x.Ports)
	f.add("leads to", x.To)
	f.add("note", x.Note)
	if x.Proxy {
		f.add("told", "who is calling, by the PROXY protocol")
	}
	f.add("for", joined(x.Sources))
	if len(x.Sources) == 0 {
		f.add("for", "nobody by its name: add a grant (vpnctl policy edit)")
	}
	if x.Trouble != "" {
		f.addStyled("attention", x.Trouble, warn)
	}
	f.draw(a.ui)
	return nil
}

type resourceAddCmd struct {
	Name    string   `arg:"" help:"What to call it: letters, digits, \"-\", \"_\" and \".\"."`
	To      string   `arg:"" help:"Where it is: HOST:PORT, http://HOST[:PORT], unix:/PATH, or HOST with --ports. localhost is the gateway's own host."`
	For     []string `help:"Who reaches it: users, group:NAME, tag:NAME, autogroup:member. Without it nobody does until a grant says so." placeholder:"WHO" predictor:"user"`
	Ports   []string `help:"The target's ports where there are several: tcp:445, udp:53, tcp:8000-8099." placeholder:"PORTS"`
	Port    uint16   `help:"The port inside of the tunnel, where it is not the target's." placeholder:"PORT"`
	Title   string   `help:"What people call it, for the tunnel's page." placeholder:"TEXT"`
	About   string   `help:"What people should know about it." placeholder:"TEXT"`
	MFA     string   `name:"mfa" help:"How fresh a code must be: 15m, 8h, or off for none." placeholder:"DURATION"`
	Proxy   bool     `help:"Tell a TCP target who is calling, by the PROXY protocol (v2)."`
	Gateway bool     `name:"from-gateway" help:"Call a target on the gateway's own host from the gateway's tunnel address. For servers that trust all of 127.0.0.0/8, such as Postfix (mynetworks) and Apache (Require local)."`
	changeFlags
}

// Help is shown by --help.
func (resourceAddCmd) Help() string {
	return `The resource stands in the policy, and is edited there: comments and layout stay as they are. It shows who gains what by it, and asks, as vpnctl policy apply does. Everybody reaches it at once: its address lies in what every config routes already.

What listens on the gateway's own host sees an address of 127.0.0.0/8 that stands for the device. Where a server trusts all of 127.0.0.0/8 without a password, everybody whom the resource is for would be trusted: give --from-gateway. Only root on the gateway (or vpnd's own user) may publish what is there.`
}

func (c *resourceAddCmd) Run(ctx context.Context, a *app) error {
	if c.Note == "" {
		c.Note = "publish " + c.Name
	}
	now, err := a.api.policy().GetPolicy(ctx, &vpnv1.GetPolicyRequest{})
	if err != nil {
		return err
	}
	next, err := language.AddResource([]byte(now.Policy.GetText()), language.NewResource{
		Name: c.Name, To: c.To, Ports: c.Ports, Port: c.Port, Title: c.Title, Note: c.About,
		Proxy: c.Proxy, Gateway: c.Gateway, Sources: c.For, MFA: c.MFA,
	})
	if errors.Is(err, language.ErrResource) {
		return &exitError{exitConflict, err}
	}
	if err != nil {
		return fmt.Errorf("publish %s: %w", c.Name, onlyMessage(err))
	}
	p, err := language.Parse(next)
	if err != nil {
		return err
	}
	local := locals.Of(p.Resource(c.Name))
	if len(local) > 0 && !a.json {
		a.notef("%s is on the gateway's own host: from now on resources may lead there", joined(local))
	}
	if err := a.applyPolicyWith(ctx, "policy", string(next), now.Policy.GetVersion(), c.changeFlags, local); err != nil {
		return err
	}
	if a.json {
		return nil
	}
	if len(c.For) == 0 {
		a.notef("nobody reaches %s yet: add a grant of it (vpnctl policy edit)", c.Name)
	}
	r, err := a.api.policy().ListResources(ctx, &vpnv1.ListResourcesRequest{Name: c.Name})
	if err != nil {
		return err
	}
	x, err := one(r)
	if err != nil {
		return err
	}
	a.printf("%s is at %s, %s, inside of the tunnel.\n", c.Name, strings.Join(x.Addresses, " and "), x.Ports)
	return nil
}

// one is the resource that was asked for.
func one(r *vpnv1.ListResourcesResponse) (*vpnv1.Resource, error) {
	if len(r.Resources) != 1 {
		return nil, fmt.Errorf("vpnd answers with %s instead of one", number(len(r.Resources), "resource"))
	}
	return r.Resources[0], nil
}

// onlyMessage is a fault without its place: the text that it stands in is one that nobody has
// seen.
func onlyMessage(err error) error {
	var list language.ErrorList
	if !errors.As(err, &list) {
		return err
	}
	var out []error
	for _, e := range list {
		if !e.Warning {
			out = append(out, errors.New(e.Message))
		}
	}
	return errors.Join(out...)
}

type resourceRmCmd struct {
	Name string `arg:"" help:"Which." predictor:"resource"`
	changeFlags
}

// Help is shown by --help.
func (resourceRmCmd) Help() string {
	return `It goes out of the policy, and out of the grants that lead to it; a grant that leads nowhere else goes as a whole. Open connections to it end at once. Its address is kept for its name for 30 days.`
}

func (c *resourceRmCmd) Run(ctx context.Context, a *app) error {
	if c.Note == "" {
		c.Note = "take " + c.Name + " out"
	}
	now, err := a.api.policy().GetPolicy(ctx, &vpnv1.GetPolicyRequest{})
	if err != nil {
		return err
	}
	next, err := language.RemoveResource([]byte(now.Policy.GetText()), c.Name)
	if errors.Is(err, language.ErrNoResource) {
		return &exitError{exitNotFound, err}
	}
	if err != nil {
		return fmt.Errorf("take %s out: %w", c.Name, onlyMessage(err))
	}
	return a.applyPolicy(ctx, "policy", string(next), now.Policy.GetVersion(), c.changeFlags)
}

type resourceCheckCmd struct {
	Name string `arg:"" optional:"" help:"Which; all by default." predictor:"resource"`
}

// Help is shown by --help.
func (resourceCheckCmd) Help() string {
	return `The exit code is 1 where something does not answer. By UDP nothing answers by itself, so it is not asked.`
}

func (c *resourceCheckCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.policy().CheckResource(ctx, &vpnv1.CheckResourceRequest{Name: c.Name})
	if err != nil {
		return err
	}
	t := newTable("RESOURCE", "TARGET", "", "")
	silent := 0
	for _, x := range r.Answers {
		mark := cell{"ok", good}
		if !x.Ok {
			mark, silent = cell{"NO", warn}, silent+1
		}
		t.add(cell{x.Resource, bold}, text(x.Target), mark, text(x.Text))
	}
	switch {
	case a.json:
		if err := a.printJSON(r); err != nil {
			return err
		}
	case len(r.Answers) == 0:
		a.notef("nothing is published yet")
	default:
		t.draw(a.ui)
	}
	if silent > 0 {
		return &exitError{exitFailed, fmt.Errorf("%s did not answer", number(silent, "target"))}
	}
	return nil
}

type resourceAllowCmd struct {
	Targets []string `arg:"" optional:"" name:"target" help:"HOST:PORT, as localhost:3000, or the path of a socket; without any, those that are allowed are listed."`
}

// Help is shown by --help.
func (resourceAllowCmd) Help() string {
	return `What resources may name on the gateway's own host is set there, never by the policy alone: whoever writes the policy would otherwise reach everything that trusts its own host. It is kept in the file local-targets beside the state, where a line can be taken out by hand (then restart vpnd). vpnctl resource add does this by itself.`
}

func (c *resourceAllowCmd) Run(ctx context.Context, a *app) error {
	r := &vpnv1.AllowLocalTargetsResponse{}
	if len(c.Targets) == 0 {
		list, err := a.api.policy().ListResources(ctx, &vpnv1.ListResourcesRequest{})
		if err != nil {
			return err
		}
		r.Targets = list.LocalTargets
	} else {
		for _, s := range c.Targets {
			if _, err := locals.Parse(s); err != nil {
				return err
			}
		}
		var err error
		if r, err = a.api.policy().AllowLocalTargets(ctx, &vpnv1.AllowLocalTargetsRequest{Targets: c.Targets}); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(r)
	}
	if len(r.Targets) == 0 {
		a.notef("resources may name nothing on the gateway's own host")
	}
	for _, s := range r.Targets {
		a.printf("%s\n", s)
	}
	return nil
}
