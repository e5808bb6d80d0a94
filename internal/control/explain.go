package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"vpnd/acl/review"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/peers"
)

const (
	reasonDisabled = "disabled" // a reason that the rules do not know: they see no disabled devices
	portalPort     = 80         // on the gateway's tunnel addresses
)

// FlowAnswer says why a flow may pass now or not, and what the data plane says.
type FlowAnswer struct {
	review.Explanation
	Src, Dst netip.Addr
	Question review.Question
	Word     string // the reason as a stable word
	Why      *Why   // the same with what is missing, for an edge to put into words

	Asked    bool // whether the data plane has answered
	Permits  bool // what
	PlaneErr string
}

// Disagree tells whether policy and data plane say different things.
func (f FlowAnswer) Disagree() bool { return f.Asked && f.Permits != f.Allow }

// flowEnd is an end of a flow that was named.
type flowEnd struct {
	name     string
	addrs    []netip.Addr
	device   *peers.Device // nil: a host
	disabled *Why          // what of it is disabled, if anything
	remark   string
}

// ExplainPolicy tells whether a flow may pass now and why: one answer, or one for each
// family of addresses where they differ. It asks the data plane about the same flow.
func (s *Service) ExplainPolicy(ctx context.Context, source, destination, port string) (answers []FlowAnswer, remarks []string, err error) {
	name, q, err := review.ParseQuestion(destination, port)
	if err != nil {
		return nil, nil, Refuse("question_invalid", err)
	}
	for try := 0; ; try++ {
		answers, remarks, err = s.explain(ctx, source, name, q)
		// A session may end, or a change arrive, between the two questions: what is still
		// so a moment later is a disagreement.
		if err != nil || try == 2 || !slices.ContainsFunc(answers, FlowAnswer.Disagree) {
			return answers, remarks, err
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (s *Service) explain(ctx context.Context, source, destination string, q review.Question) ([]FlowAnswer, []string, error) {
	v := s.View()
	var remarks []string
	if c := s.closed(ctx, v.Index()); !c[0].Done {
		remarks = append(remarks, "The data plane is behind the newest changes: "+c[0].Error+".")
	}
	now := s.Time(v)
	set, _ := v.Settings()
	rules, err := compileInForce(v.Policy(), v.PolicyOptions(), subjects(v))
	if err != nil {
		return nil, nil, err
	}
	from, err := findEnd(v, rules, source)
	if err != nil {
		return nil, nil, err
	}
	to, err := findEnd(v, rules, destination)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range []flowEnd{from, to} {
		if e.remark != "" {
			remarks = append(remarks, e.remark)
		}
	}
	var out []FlowAnswer
	for _, src := range from.addrs {
		for _, dst := range to.addrs {
			if src.Is4() != dst.Is4() || src == dst {
				continue
			}
			p := q.Packet(src, dst)
			p.SrcSession, p.DstSession = worth(v, from.device, now), worth(v, to.device, now)
			a := FlowAnswer{Explanation: review.Explain(rules, p, now), Src: src, Dst: dst, Question: q}
			portal := p.Proto == 6 && p.DstPort == portalPort && slices.Contains(set.GatewayAddrs(), dst)
			a.describe(from, to, p, now, portal)
			switch {
			case portal && (from.device == nil || from.disabled != nil):
				// The filter lets whoever is in the tunnel see the sign-in page: it is
				// WireGuard that lets nobody else into the tunnel.
				a.PlaneErr = "only a peer's packets come to it, and " + from.name + " is none"
			default:
				s.askPlane(ctx, &a, p, from.device != nil)
			}
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		return nil, nil, Refuse("flow_of_two_families", from.name, to.name, joinStrings(from.addrs), joinStrings(to.addrs))
	}
	return distinctAnswers(out), remarks, nil
}

// distinctAnswers leaves the second family out where it has the same answer.
func distinctAnswers(list []FlowAnswer) []FlowAnswer {
	same := func(x, y FlowAnswer) bool {
		return x.Allow == y.Allow && x.Word == y.Word && x.Grant == y.Grant && x.Until.Equal(y.Until) &&
			x.Asked == y.Asked && x.Permits == y.Permits
	}
	out := list[:1]
	for _, a := range list[1:] {
		if !slices.ContainsFunc(out, func(b FlowAnswer) bool { return same(a, b) }) {
			out = append(out, a)
		}
	}
	return out
}

// worth is what a device's session is worth to the policy.
func worth(v *peers.View, d *peers.Device, now time.Time) rules.Session {
	if d == nil {
		return rules.Session{}
	}
	ss := LiveSession(v, d.ID, now)
	if ss == nil {
		return rules.Session{}
	}
	return rules.Session{Until: ss.Until, Code: CodeAt(ss)}
}

// askPlane asks the data plane about the flow's first packet.
func (s *Service) askPlane(ctx context.Context, a *FlowAnswer, p rules.Packet, fromDevice bool) {
	if !fromDevice {
		// No peer has the zero key: the plane's name is all that is wanted.
		if st, err := s.gateway.Stats(ctx, dataplane.Key{}); err == nil && st.Plane == "netstack" {
			a.PlaneErr = "the netstack plane carries no flows that begin at a resource"
			return
		}
	}
	ok, err := s.gateway.Permits(ctx, dataplane.Flow{Src: p.Src, Dst: p.Dst, Proto: p.Proto, DstPort: p.DstPort})
	if err != nil {
		s.log.Warn("the data plane could not be asked about a flow", "what", "policy.explain", "source", p.Src, "target", p.Dst, "why", err)
		a.PlaneErr = err.Error()
		return
	}
	a.Asked, a.Permits = true, ok
}

// findEnd finds what a person names: a device, a user with one, a host, or an address.
func findEnd(v *peers.View, ruleset *rules.Ruleset, name string) (flowEnd, error) {
	if user, device, ok := strings.Cut(name, "/"); ok && !isPrefix(name) {
		if u := v.UserByName(user); u != nil {
			if d := v.DeviceByName(u.ID, device); d != nil {
				return deviceEnd(u, d), nil
			}
		}
		return flowEnd{}, Refuse("no_device", name)
	}
	addrs, network, err := review.Addresses(ruleset, name)
	switch {
	case err == nil && len(addrs) == 1:
		if d := v.DeviceByAddr(addrs[0]); d != nil {
			e := deviceEnd(v.User(d.User), d)
			e.addrs = addrs // the family that was asked for
			return e, nil
		}
		e := flowEnd{name: name, addrs: addrs}
		if network {
			e.remark = fmt.Sprintf("%s is a network: this is about %s in it.", name, addrs[0])
		}
		return e, nil
	case err == nil:
		return flowEnd{name: name, addrs: addrs}, nil
	case !errors.Is(err, review.ErrNoHost):
		return flowEnd{}, Refuse("question_invalid", err)
	}
	u := v.UserByName(strings.TrimSuffix(name, "@"))
	if u == nil {
		return flowEnd{}, Refuse("no_flow_end", name)
	}
	var devices []*peers.Device
	var names []string
	for d := range v.DevicesOf(u.ID) {
		devices, names = append(devices, d), append(names, u.Name+"/"+d.Name)
	}
	switch len(devices) {
	case 0:
		return flowEnd{}, Refuse("user_without_device", u.Name)
	case 1:
		return deviceEnd(u, devices[0]), nil
	}
	return flowEnd{}, Refuse("flow_of_many_devices", u.Name, len(devices), strings.Join(names, ", "))
}

func isPrefix(s string) bool {
	_, err := netip.ParsePrefix(s)
	return err == nil
}

func deviceEnd(u *peers.User, d *peers.Device) flowEnd {
	e := flowEnd{name: u.Name + "/" + d.Name, addrs: d.Addrs, device: d}
	switch {
	case u.Disabled:
		e.disabled = explained("disabled_user", "user", u.Name)
	case d.Disabled:
		e.disabled = explained("disabled_device", "device", e.name)
	}
	return e
}
