package language

import (
	"slices"
	"strings"
	"time"

	"github.com/tailscale/hujson"
)

// MaxGrants is the most entries of "acls" and "grants" together.
const MaxGrants = 10_000

// MaxNote is the most characters of a note.
const MaxNote = 500

// draft is a grant while it is read.
type draft struct {
	Grant
	protos []uint8 // of an entry of "acls"; nil: not given
	ports  []Span  // of an entry of "grants"; nil: not given
	dsts   []draftDst
}

// draftDst is a destination of an entry of "acls" before its protocol is known.
type draftDst struct {
	Selector
	ports string
}

// srcField and the fields after it are the members of entries of both sections.
var srcField = field[draft]{name: "src", doc: "who: users, groups, tags, hosts, prefixes, \"*\" for every enrolled device",
	required: true, kind: listOf(selectorKind), decode: func(d *decoder, g *draft, v *hujson.Value) {
		d.strings(`"src"`, v, func(s string, v *hujson.Value) {
			if t, ok := d.selector(s, v); ok {
				if t.Kind == SelectSelf {
					d.Errorf(t.At, CodeSelfAsSource, "autogroup:self is a destination: as a source write autogroup:member")
					return
				}
				g.Src = append(g.Src, t)
			}
		})
	}}

var grantObject = &object[draft]{
	what: "a grant",
	fields: []field[draft]{
		srcField,
		{name: "dst", doc: "what: resources, hosts, prefixes, IP sets, users, groups, tags, autogroup:self, \"*\" for everything",
			required: true, kind: listOf(selectorKind), decode: func(d *decoder, g *draft, v *hujson.Value) {
				d.strings(`"dst"`, v, func(s string, v *hujson.Value) {
					if t, ok := d.selector(s, v); ok {
						g.Dst = append(g.Dst, destination{Selector: t})
					}
				})
			}},
		{name: "ip", doc: "protocols and ports: \"tcp:443\", \"udp:1-100\", \"443\", \"icmp\", \"47:*\", \"*\"; without a protocol TCP, UDP and ICMP; a grant of resources alone needs none",
			kind: listOf(ipKind), decode: func(d *decoder, g *draft, v *hujson.Value) {
				g.ports = []Span{}
				d.strings(`"ip"`, v, func(s string, v *hujson.Value) {
					list, err := parseIP(s)
					if err != nil {
						d.Err(textRangeOf(v), err)
						return
					}
					g.ports = append(g.ports, list...)
				})
			}},
		{name: "mfa", doc: "how fresh the code must be: a duration like \"15m\" or \"8h\", at most the session's length, or \"off\" for none at all",
			kind: mfaKind, decode: decodeMFA},
		{name: "hours", doc: "weekly windows in which the grant holds: \"Mon-Fri 08:00-18:00 Europe/Berlin\", or a list of them for one zone",
			kind: oneOrListOf(hoursKind), decode: decodeHours},
		{name: "expires", doc: "the instant at which the grant ends: \"2026-12-31T18:00:00+01:00\"", kind: expiresKind, decode: decodeExpires},
		{name: "note", doc: "why: shown where the grant is", kind: noteKind, decode: func(d *decoder, g *draft, v *hujson.Value) {
			if s, ok := d.string(`"note"`, v); ok {
				if len([]rune(s)) > MaxNote {
					d.Errorf(textRangeOf(v), CodeTooLong, "the note has more than %d characters: use a comment", MaxNote)
				}
				g.Note = s
			}
		}},
	},
	foreign: map[string]string{
		"app":        "application capabilities do not exist here; grant ports by \"ip\"",
		"via":        "there are no routers to choose from; the gateway routes",
		"srcPosture": "there are no device postures; see \"mfa\"",
		"action":     "every grant allows, and what no grant allows is denied; leave it out",
		"proto":      "a grant's protocols stand in \"ip\": \"tcp:443\"",
		"users":      "write \"src\"",
		"ports":      "write \"dst\" and \"ip\"",
	},
}

const onlyGrants = "only an entry of \"grants\" has it; move the rule there"

var aclObject = &object[draft]{
	what: "an entry of \"acls\"",
	fields: []field[draft]{
		{name: "action", doc: "\"accept\", the only one there is", required: true, kind: kind{"const": "accept"},
			decode: func(d *decoder, g *draft, v *hujson.Value) {
				if s, ok := d.string(`"action"`, v); ok && s != "accept" {
					d.Errorf(textRangeOf(v), CodeUnsupported, "the action %q is not supported: there is \"accept\" alone, and what nothing accepts is denied", Short(s))
				}
			}},
		srcField,
		{name: "proto", doc: "a protocol's name or number; without it TCP, UDP and ICMP", kind: protoKind,
			decode: func(d *decoder, g *draft, v *hujson.Value) {
				if s, ok := d.string(`"proto"`, v); ok {
					p, err := ParseProto(s)
					if err != nil {
						d.Err(textRangeOf(v), err)
					}
					g.protos = p
				}
			}},
		{name: "dst", doc: "what, with ports: \"db:5432\", \"tag:web:80,443\", \"10.0.0.0/8:*\"",
			required: true, kind: listOf(portedKind), decode: func(d *decoder, g *draft, v *hujson.Value) {
				d.strings(`"dst"`, v, func(s string, v *hujson.Value) {
					host, ports, err := SplitPorts(s)
					if err != nil {
						d.Err(textRangeOf(v), err)
						return
					}
					if t, ok := d.selector(host, v); ok {
						g.dsts = append(g.dsts, draftDst{t, ports})
					}
				})
			}},
	},
	foreign: map[string]string{
		"users": "write \"src\"", "ports": "write \"dst\"",
		"srcPosture": "there are no device postures",
		"mfa":        onlyGrants, "hours": onlyGrants, "expires": onlyGrants, "note": onlyGrants,
		"ip": onlyGrants, "via": "there are no routers to choose from; the gateway routes",
	},
}

func (d *decoder) selector(s string, v *hujson.Value) (Selector, bool) {
	t, err := ParseSelector(s)
	if err != nil {
		d.Err(textRangeOf(v), err)
		return t, false
	}
	t.At = textRangeOf(v)
	return t, true
}

func decodeGrants(d *decoder, p *Policy, v *hujson.Value) {
	d.elements(`"grants"`, v, func(v *hujson.Value) {
		if !d.roomForGrant(p, v) {
			return
		}
		d.grant(p, v, func(g *draft) bool {
			if !grantObject.decode(d, g, v) {
				return false
			}
			ports := mergeSpans(g.ports)
			for i := range g.Dst {
				g.Dst[i].Spans = ports
			}
			return true
		})
	})
}

func decodeACLs(d *decoder, p *Policy, v *hujson.Value) {
	d.elements(`"acls"`, v, func(v *hujson.Value) {
		if !d.roomForGrant(p, v) {
			return
		}
		d.grant(p, v, func(g *draft) bool {
			if !aclObject.decode(d, g, v) {
				return false
			}
			protos := g.protos
			if protos == nil {
				protos = anyProtocol
			}
			for _, dst := range g.dsts {
				if dst.ports != "*" && !slices.ContainsFunc(protos, HasPorts) {
					d.Errorf(dst.At, CodeNoPorts, "this protocol has no ports: write \"%s:*\"", dst.Selector)
					continue
				}
				list, err := spans(protos, dst.ports)
				if err != nil {
					d.Err(dst.At, err)
					continue
				}
				g.Dst = append(g.Dst, destination{dst.Selector, mergeSpans(list)})
			}
			return true
		})
	})
}

func (d *decoder) roomForGrant(p *Policy, v *hujson.Value) bool {
	if d.stored {
		return true
	}
	if len(p.grants) == MaxGrants {
		d.Errorf(textRangeOf(v), CodeOverLimit, "more than %d entries in \"acls\" and \"grants\": put several sources and destinations into one entry", MaxGrants)
	}
	if len(p.grants) >= MaxGrants {
		p.grants = append(p.grants, nil) // counted, so that the fault is told once
		return false
	}
	return true
}

// grant reads one entry of "acls" or "grants".
func (d *decoder) grant(p *Policy, v *hujson.Value, read func(*draft) bool) {
	g := &draft{}
	g.At = textRangeOf(v)
	if d.part(g.At, givesNothing, func() {
		before := len(d.List)
		if read(g) && before == len(d.List) && (len(g.Src) == 0 || len(g.Dst) == 0) {
			d.warnf(g.At, CodeGrantsNothing, "this grants nothing: it has no source or no destination")
		}
	}) {
		p.grants = append(p.grants, &g.Grant)
	}
}

func decodeMFA(d *decoder, g *draft, v *hujson.Value) {
	s, ok := d.string(`"mfa"`, v)
	if !ok {
		return
	}
	g.MFAAt = textRangeOf(v)
	if s == "off" {
		g.Off = true
		return
	}
	mfa, err := time.ParseDuration(s)
	switch {
	case err != nil || strings.Trim(s, "0123456789hms") != "" || strings.Contains(s, "ms"):
		d.Errorf(textRangeOf(v), CodeBadMFA, "%q is not a freshness: write a duration like \"15m\" or \"1h30m\", or \"off\" for no code at all", Short(s))
	case mfa < time.Second:
		d.Errorf(textRangeOf(v), CodeBadMFA, "a code cannot be as fresh as %s: write at least \"1s\", or \"off\" for no code at all", s)
	default:
		g.MFA = mfa
	}
}

func decodeHours(d *decoder, g *draft, v *hujson.Value) {
	var zone *time.Location
	var list []window
	given := false
	d.stringOrStrings(`"hours"`, v, func(s string, v *hujson.Value) {
		given = true
		if d.stored && len(d.zones) >= MaxZones {
			clear(d.zones)
		}
		z, w, err := parseHours(s, d.zones)
		switch {
		case err != nil:
			d.Err(textRangeOf(v), err)
		case zone != nil && z.String() != zone.String():
			d.Errorf(textRangeOf(v), CodeBadHours, "the hours of one grant are in one time zone: make another grant for %s", z)
		default:
			zone = z
			list = append(list, w...)
		}
	})
	if !given {
		d.Errorf(textRangeOf(v), CodeBadHours, "no hours are given: %s, or leave \"hours\" out", hoursForm)
	}
	if zone != nil {
		g.Hours = newHours(zone, list)
	}
}

func decodeExpires(d *decoder, g *draft, v *hujson.Value) {
	s, ok := d.string(`"expires"`, v)
	if !ok {
		return
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Year() < 1970 {
		d.Errorf(textRangeOf(v), CodeBadExpires, "%q is not an instant: write date, time and zone like \"2026-12-31T18:00:00+01:00\" or \"2026-12-31T17:00:00Z\"", Short(s))
		return
	}
	g.Expires = t.UTC()
}
