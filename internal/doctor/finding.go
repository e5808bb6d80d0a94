// Package doctor looks at a whole installation and says what is in its way: facts in,
// findings out. A look never changes anything of the host's.
package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	vpnv1 "vpnd/proto/vpn/v1"
)

// Finding is one thing that was looked at, as it is carried to vpnctl.
type Finding = vpnv1.Finding

// Severities, the most urgent first.
const (
	Must    = "must"    // people cannot work, or will not be able to soon
	Advice  = "advice"  // works, with a weakness
	Unknown = "unknown" // could not be seen
	OK      = "ok"
)

var order = []string{Must, Advice, Unknown, OK}

// sort is what all findings of a code have in common; {name} is a parameter.
type sort struct{ subject, severity, text, remedy string }

// Codes are all that there are, sorted.
func Codes() []string {
	var out []string
	for c := range sorts {
		out = append(out, c)
	}
	slices.Sort(out)
	return out
}

// find makes a finding of a code, with names and values of its parameters by turns.
func find(code string, params ...any) *Finding {
	s, ok := sorts[code]
	if !ok || len(params)%2 != 0 {
		panic("doctor: no such finding, or a parameter without a value: " + code)
	}
	f := &Finding{Code: code, Severity: s.severity, Subject: s.subject}
	var replace []string
	for i := 0; i < len(params); i += 2 {
		name, value := fmt.Sprint(params[i]), oneLine(fmt.Sprint(params[i+1]))
		f.Params = append(f.Params, &vpnv1.FindingParam{Name: name, Value: value})
		replace = append(replace, "{"+name+"}", value)
	}
	r := strings.NewReplacer(replace...)
	f.Text, f.Remedy = r.Replace(s.text), r.Replace(s.remedy)
	return f
}

// oneLine makes one line of a text of others: an error, a log.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Sort puts what must be done first, and leaves the order within a severity.
func Sort(list []*Finding) {
	slices.SortStableFunc(list, func(a, b *Finding) int {
		return cmp.Compare(slices.Index(order, a.Severity), slices.Index(order, b.Severity))
	})
}
