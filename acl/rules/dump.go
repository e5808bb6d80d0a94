package rules

import (
	"fmt"
	"strings"
	"time"

	"vpnd/acl/language"
)

// Dump is the enforceable form of a Ruleset at an instant, for people and golden files.
func (r *Ruleset) Dump(now time.Time) string {
	c := r.c
	var b strings.Builder
	b.WriteString("grants\n")
	for i, g := range c.grants {
		fmt.Fprintf(&b, "  %d  line %d: %s\n", i, g.Line, g.Text)
	}
	b.WriteString("devices\n")
	for p, d := range c.devices.AllSorted() {
		fmt.Fprintf(&b, "  %s  %s role %d zone %d\n", p.Addr(), d.Subject.Device, d.Role, d.Zone)
	}
	b.WriteString("sources\n")
	for _, x := range c.sources {
		fmt.Fprintf(&b, "  %s  role %d\n", language.PrefixText(x.Prefix), x.Role)
	}
	b.WriteString("destinations\n")
	for _, x := range c.destinations {
		fmt.Fprintf(&b, "  %s  zone %d\n", language.PrefixText(x.Prefix), x.Zone)
	}
	b.WriteString("zones\n")
	if t := r.Twin(0); t != 0 {
		fmt.Fprintf(&b, "  0  (of the same user: %d)\n", t)
	}
	for id, ports := range r.Zones() {
		fmt.Fprintf(&b, "  %d ", id)
		if t := r.Twin(id); t != 0 {
			fmt.Fprintf(&b, " (of the same user: %d)", t)
		}
		for _, x := range ports {
			fmt.Fprintf(&b, " %s=%d", language.SpanText(x.Proto, x.First, x.Last), x.Class)
		}
		b.WriteByte('\n')
	}
	b.WriteString("allows\n")
	for _, a := range r.Allows(now) {
		mfa := "off"
		if a.MFA > 0 {
			mfa = language.DurationText(a.MFA)
		}
		fmt.Fprintf(&b, "  role %d class %d mfa %s", a.Role, a.Class, mfa)
		if !a.Until.IsZero() {
			fmt.Fprintf(&b, " until %s", a.Until.Format(time.RFC3339))
		}
		b.WriteByte('\n')
	}
	return b.String()
}
