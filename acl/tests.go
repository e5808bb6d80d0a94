package acl

import "github.com/tailscale/hujson"

// test is an entry of "tests".
type test struct {
	at     place
	src    []target
	protos []uint8 // nil: not given
	accept []testDst
	deny   []testDst
}

// testDst is a destination with ports whose reach a test asserts.
type testDst struct {
	target
	text    string
	windows []window // ports; nil: all
}

var testObject = &object[test]{
	what: "a test",
	fields: []field[test]{
		{name: "src", doc: "who: a user, group, tag, host or address, or a list of them; each is tested", required: true,
			kind: oneOrListOf(targetKindOf), decode: func(d *decoder, t *test, v *hujson.Value) {
				d.stringOrStrings(`"src"`, v, func(s string, v *hujson.Value) {
					if x, ok := d.target(s, v); ok {
						if x.kind == selfTarget {
							d.errorf(x.at, "autogroup:self is a destination: as a source write autogroup:member")
							return
						}
						t.src = append(t.src, x)
					}
				})
			}},
		{name: "proto", doc: "a protocol's name or number; without it TCP or UDP must reach an \"accept\", and neither a \"deny\"",
			kind: protoKind, decode: func(d *decoder, t *test, v *hujson.Value) {
				if s, ok := d.string(`"proto"`, v); ok {
					p, err := parseProto(s)
					if err != nil {
						d.errorf(placeOf(v), "%v", err)
					}
					t.protos = p
				}
			}},
		{name: "accept", doc: "destinations with ports that every source must reach", kind: listOf(portedKind),
			decode: func(d *decoder, t *test, v *hujson.Value) { t.accept = d.testDsts(`"accept"`, v) }},
		{name: "deny", doc: "destinations with ports that no source may reach", kind: listOf(portedKind),
			decode: func(d *decoder, t *test, v *hujson.Value) { t.deny = d.testDsts(`"deny"`, v) }},
	},
	foreign: map[string]string{
		"allow":           "write \"accept\"",
		"user":            "write \"src\"",
		"srcPostureAttrs": "there are no device postures",
	},
}

func (d *decoder) testDsts(what string, v *hujson.Value) []testDst {
	var list []testDst
	d.strings(what, v, func(s string, v *hujson.Value) {
		host, ports, err := splitPorts(s)
		if err != nil {
			d.errorf(placeOf(v), "%v", err)
			return
		}
		windows, err := parsePorts(ports)
		if err != nil {
			d.errorf(placeOf(v), "%v", err)
			return
		}
		if t, ok := d.target(host, v); ok {
			list = append(list, testDst{t, s, windows})
		}
	})
	return list
}

func decodeTests(d *decoder, p *Policy, v *hujson.Value) {
	d.elements(`"tests"`, v, func(v *hujson.Value) {
		t := &test{at: placeOf(v)}
		if !testObject.decode(d, t, v) {
			return
		}
		if len(t.src) == 0 || len(t.accept)+len(t.deny) == 0 {
			d.errorf(t.at, "this tests nothing: give \"src\" and \"accept\" or \"deny\"")
		}
		p.tests = append(p.tests, t)
	})
}
