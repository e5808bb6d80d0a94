package language

import "github.com/tailscale/hujson"

// Test is an entry of "tests".
type Test struct {
	At     TextRange
	Src    []Selector
	Protos []uint8 // nil: not given
	Accept []TestDst
	Deny   []TestDst
}

// TestDst is a destination with ports whose reach a test asserts.
type TestDst struct {
	Selector
	Text    string
	Windows []window // ports; nil: all
}

var testObject = &object[Test]{
	what: "a test",
	fields: []field[Test]{
		{name: "src", doc: "who: a user, group, tag, host or address, or a list of them; each is tested", required: true,
			kind: oneOrListOf(selectorKind), decode: func(d *decoder, t *Test, v *hujson.Value) {
				d.stringOrStrings(`"src"`, v, func(s string, v *hujson.Value) {
					if x, ok := d.selector(s, v); ok {
						if x.Kind == SelectSelf {
							d.Errorf(x.At, CodeSelfAsSource, "autogroup:self is a destination: as a source write autogroup:member")
							return
						}
						t.Src = append(t.Src, x)
					}
				})
			}},
		{name: "proto", doc: "a protocol's name or number; without it TCP or UDP must reach an \"accept\", and neither a \"deny\"",
			kind: protoKind, decode: func(d *decoder, t *Test, v *hujson.Value) {
				if s, ok := d.string(`"proto"`, v); ok {
					p, err := ParseProto(s)
					if err != nil {
						d.Err(textRangeOf(v), err)
					}
					t.Protos = p
				}
			}},
		{name: "accept", doc: "destinations with ports that every source must reach", kind: listOf(portedKind),
			decode: func(d *decoder, t *Test, v *hujson.Value) { t.Accept = d.testDsts(`"accept"`, v) }},
		{name: "deny", doc: "destinations with ports that no source may reach", kind: listOf(portedKind),
			decode: func(d *decoder, t *Test, v *hujson.Value) { t.Deny = d.testDsts(`"deny"`, v) }},
	},
	foreign: map[string]string{
		"allow":           "write \"accept\"",
		"user":            "write \"src\"",
		"srcPostureAttrs": "there are no device postures",
	},
}

func (d *decoder) testDsts(what string, v *hujson.Value) []TestDst {
	var list []TestDst
	d.strings(what, v, func(s string, v *hujson.Value) {
		host, ports, err := SplitPorts(s)
		if err != nil {
			d.Err(textRangeOf(v), err)
			return
		}
		windows, err := ParsePorts(ports)
		if err != nil {
			d.Err(textRangeOf(v), err)
			return
		}
		if t, ok := d.selector(host, v); ok {
			list = append(list, TestDst{t, s, windows})
		}
	})
	return list
}

func decodeTests(d *decoder, p *Policy, v *hujson.Value) {
	d.elements(`"tests"`, v, func(v *hujson.Value) {
		t := &Test{At: textRangeOf(v)}
		if d.part(t.At, leftOut, func() {
			if testObject.decode(d, t, v) && (len(t.Src) == 0 || len(t.Accept)+len(t.Deny) == 0) {
				d.Errorf(t.At, CodeTestsNothing, "this tests nothing: give \"src\" and \"accept\" or \"deny\"")
			}
		}) {
			p.tests = append(p.tests, t)
		}
	})
}
