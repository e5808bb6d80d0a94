package peers

import "vpnd/acl/rules"

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
