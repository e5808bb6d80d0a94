package peers

import (
	"net/netip"

	"vpnd/acl/rules"
)

// Subject is the device as the policy sees it; ok is false when it or its owner is
// disabled, or not there any more: then the policy must not know it.
func (v *View) Subject(d *Device) (s rules.Subject, ok bool) {
	if d == nil || d.Disabled {
		return s, false
	}
	u := v.User(d.User)
	if u == nil || u.Disabled {
		return s, false
	}
	return rules.Subject{Device: u.Name + "/" + d.Name, User: u.Name, Tags: d.Tags, Addrs: d.Addrs}, true
}

// PolicyOptions are the settings and places that give the policy in force its meaning.
func (v *View) PolicyOptions() rules.Options {
	o := v.policyOptions()
	for p := range scan[place](v, tablePlaces, byID, nil) {
		if p.Gone == 0 {
			o.Services[p.Name] = placeAddrs(o.Network, p.Place)
		}
	}
	return o
}

// PolicyOptionsFor are those of a policy that is to come, whose resources have these names,
// sorted: with the places that they would get. It is a Refusal where there are not enough.
func (v *View) PolicyOptionsFor(names []string) (rules.Options, error) {
	o := v.policyOptions()
	places, err := assign(v, v.m, names)
	if err != nil {
		return o, err
	}
	for i, name := range names {
		n := places[i]
		if n == 0 {
			n = get[place](v, tablePlaces, byName, []byte(name)).Place
		}
		o.Services[name] = placeAddrs(o.Network, n)
	}
	return o, nil
}

func (v *View) policyOptions() rules.Options {
	s := v.m.Settings
	return rules.Options{Network: s.Network, Gateway: s.GatewayAddrs(), Session: s.Session, Services: map[string][]netip.Addr{}}
}
