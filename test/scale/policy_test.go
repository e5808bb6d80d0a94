package scale

import (
	"fmt"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/test/report"
)

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// compiling measures the compiler, and gives how long reading and compiling the policy of
// the smaller size takes.
func compiling(t *testing.T, r *report.Report, p plan) (both time.Duration) {
	t.Helper()
	r.Head("Compiling, the best of %d", p.rounds)
	for _, size := range []struct {
		devices, groups, grants int
		most                    time.Duration
	}{
		{p.devices, p.groups, p.grants[1], 100 * time.Millisecond},
		{5 * p.devices, p.groups, p.grants[2], time.Second},
	} {
		l := acltest.Large{Devices: size.devices, Groups: size.groups, Grants: size.grants, Target: target}
		text, subjects := []byte(l.Text()), l.Subjects()
		var parse, compile []time.Duration
		for range p.rounds {
			begin := time.Now()
			policy, err := language.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			parse = append(parse, time.Since(begin))
			begin = time.Now()
			if _, err := rules.Compile(policy, acltest.LargeOptions, subjects); err != nil {
				t.Fatal(err)
			}
			compile = append(compile, time.Since(begin))
		}
		r.Judge(least(compile) <= size.most, "%.0f ms with %d devices and %d grants (at most %.0f); reading its %d KB before that: %.0f ms",
			ms(least(compile)), size.devices, size.grants, ms(size.most), len(text)/1000, ms(least(parse)))
		if both == 0 {
			both = least(parse) + least(compile)
		}
	}
	return both
}

func least(list []time.Duration) time.Duration {
	d := list[0]
	for _, x := range list {
		d = min(d, x)
	}
	return d
}

// changing measures how long a change takes from its commit to the kernel.
func changing(t *testing.T, r *report.Report, p plan, compiled time.Duration) {
	l := acltest.Large{Devices: p.devices, Groups: p.groups, Grants: p.grants[0], Target: target}
	r.Progress("starting gateways with %d devices of %d users, all signed in", p.devices, p.devices/2)
	few := startGateway(t, 0, fmt.Sprintf("%d grants", l.Grants), job{Large: l})
	first := startGateway(t, 1, "the default policy", job{Large: l, Default: true})
	l.Grants = p.grants[1]
	large := startGateway(t, 2, fmt.Sprintf("%d grants", l.Grants), job{Large: l})

	r.Progress("changing the policy")
	var added, removed [2][]time.Duration
	var swaps []time.Duration
	var signIns [2][]time.Duration
	for i := range p.changes {
		for k, g := range []*gateway{few, large} {
			added[k] = append(added[k], g.took(t, "member"))
			removed[k] = append(removed[k], g.took(t, "member"))
		}
		for k, g := range []*gateway{first, large} {
			signIns[k] = append(signIns[k], g.took(t, fmt.Sprintf("sign-in %d", i)))
		}
	}
	// While somebody listens to nf_tables, in whatever namespace, every element is announced.
	few.stop()
	first.stop()
	for range p.rounds {
		swaps = append(swaps, large.took(t, "grant"))
	}
	r.Head("From commit to kernel: state, reconciler and linux plane as vpnd has them, %d devices of %d users,\nall signed in; %d groups of 100, %d grants; p50 / p99 of %d turns, in ms", p.devices, p.devices/2, p.groups, p.grants[1], p.changes)
	show := func(what string, list []time.Duration) {
		r.Add("  %-52s %6.2f / %6.2f", what, ms(report.Median(list)), ms(report.Quantile(list, .99)))
	}
	show("one user added to a group", added[1])
	show("… with "+few.name, added[0])
	show("one taken out, her flows looked for and ended", removed[1])
	show("… with "+few.name, removed[0])
	show("a sign-in", signIns[1])
	show("… with "+first.name, signIns[0])
	show("another policy: read, compiled and swapped", swaps)
	swap := max(0, report.Median(swaps)-compiled)
	r.Judge(swap <= 500*time.Millisecond, "another policy swapped into nftables: %.0f ms, without reading and compiling it (at most 500)", ms(swap))
	m := report.Median(added[1])
	r.Judge(m <= 5*time.Millisecond, "a user added to a group: %.2f ms (at most 5)", ms(m))
	ratio := float64(m) / float64(report.Median(added[0]))
	r.Judge(ratio <= 2, "… %.2f of that with %s (at most 2)", ratio, few.name)
	ratio = float64(report.Median(signIns[1])) / float64(report.Median(signIns[0]))
	r.Judge(ratio <= 1.25, "a sign-in: %.2f of that with %s (the same: at most 1.25)", ratio, first.name)
}
