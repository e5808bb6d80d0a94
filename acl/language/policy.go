// Package language is the text of a policy: what may be written, what it says once its
// names are resolved, every fault of it with line and column, and edits that keep the rest
// of the text as it is.
//
// It knows no device and no packet: package rules gives a Policy its meaning.
package language

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tailscale/hujson"

	"vpnd/acl/internal/layered"
)

// Policy is a parsed policy file. It is immutable.
type Policy struct {
	src       *source
	grants    []*Grant // of "acls" and "grants", in the order of the text
	groups    map[string]*group
	hosts     map[string]host
	resources map[string]*Resource
	ipsets    map[string]*IPSet
	tags      map[string]*tagOwner
	tests     []*Test
	stored    bool // read by ParseStored
	warnings  ErrorList
	ignored   ErrorList       // of a stored policy: what this version refuses
	refused   map[string]bool // of a stored policy: its hosts, IP sets and resources that are refused

	groupsOf layered.Map[[]string] // user -> the groups that she is in, nested ones included; sorted
	values   int                   // in the text, as measure counts them
}

// group is an entry of "groups".
type group struct {
	at     TextRange
	list   TextRange // with its brackets
	users  []member
	groups []member
	flat   []string // every user, of nested groups too; sorted
}

type member struct {
	name string
	at   TextRange
}

// host is an entry of "hosts".
type host struct {
	at     TextRange
	prefix netip.Prefix
}

// IPSet is an entry of "ipsets": its elements work in order.
type IPSet struct {
	At  TextRange
	Ops []IPSetOp
}

type IPSetOp struct {
	Remove   bool
	Selector Selector // prefixTarget, hostTarget or ipsetTarget
}

// tagOwner is an entry of "tagOwners".
type tagOwner struct {
	at     TextRange
	owners []Selector
}

// Parse reads a policy in HuJSON. Its error is an ErrorList with every fault of the
// text, each with line and column. An empty text is an empty policy, which denies
// everything.
func Parse(text []byte) (*Policy, error) {
	p, d := read(text, false)
	list := d.Sorted()
	if list.Fatal() {
		return nil, list
	}
	p.warnings = list
	return p, nil
}

func read(text []byte, stored bool) (*Policy, *decoder) {
	d := &decoder{Faults: Faults{src: newSource(slices.Clone(text))}, stored: stored, zones: map[string]*time.Location{}, carried: map[string]netip.Prefix{}}
	p := &Policy{src: d.src, stored: stored, groups: map[string]*group{}, hosts: map[string]host{}, resources: map[string]*Resource{},
		ipsets: map[string]*IPSet{}, tags: map[string]*tagOwner{}, refused: map[string]bool{}}
	if len(strings.TrimSpace(string(text))) > 0 {
		v, ok := d.parseHuJSON()
		p.values = d.values
		if ok && file.decode(d, p, v) {
			d.resolve(p)
		}
	}
	return p, d
}

// file is the grammar's outermost object.
var file = &object[Policy]{
	what: "a policy",
	fields: []field[Policy]{
		{name: "groups", doc: "named lists of users", kind: mapOf(groupNameKind, listOf(memberKind)), decode: decodeGroups},
		{name: "hosts", doc: "names for addresses and prefixes", kind: mapOf(hostNameKind, prefixKind), decode: decodeHosts},
		{name: "resources", doc: "published things, each with an address of its own inside of the tunnel", kind: mapOf(hostNameKind, objectKind(func() node { return resourceObject })), decode: decodeResources},
		{name: "ipsets", doc: "named sets of prefixes, put together by add and remove", kind: mapOf(ipsetNameKind, listOf(ipsetOpKind)), decode: decodeIPSets},
		{name: "tagOwners", doc: "the tags there are, and who besides administrators may give each to a device", kind: mapOf(tagNameKind, listOf(ownerKind)), decode: decodeTagOwners},
		{name: "acls", doc: "what is allowed, in the older form, with ports on each destination", kind: listOf(objectKind(func() node { return aclObject })), decode: decodeACLs},
		{name: "grants", doc: "what is allowed; all else is denied", kind: listOf(objectKind(func() node { return grantObject })), decode: decodeGrants},
		{name: "tests", doc: "what must be allowed and denied; a policy that fails one is refused", kind: listOf(objectKind(func() node { return testObject })), decode: decodeTests},
	},
	foreign: map[string]string{
		"ssh":                 "there is no SSH server in the gateway; grant tcp:22",
		"sshTests":            "there is no SSH server in the gateway; test tcp port 22 in \"tests\"",
		"nodeAttrs":           "devices have no attributes; select them by \"tag:\" or \"group:\"",
		"postures":            "there are no device postures; see \"mfa\" on a grant",
		"defaultSrcPosture":   "there are no device postures; see \"mfa\" on a grant",
		"autoApprovers":       "routes are an option of the gateway, not of devices",
		"derpMap":             "there are no relays",
		"disableIPv4":         "a device always has an address of each family",
		"randomizeClientPort": "it is the client's own affair",
		"OneCGNATRoute":       "it belongs to Tailscale's client",
		"attrConfig":          "devices have no attributes; select them by \"tag:\" or \"group:\"",
	},
}

func decodeGroups(d *decoder, p *Policy, v *hujson.Value) {
	d.members(`"groups"`, v, func(name string, key, value *hujson.Value) {
		if !d.definedName("group", name, key) {
			return
		}
		g := d.group(value)
		g.at = textRangeOf(key)
		p.groups[name] = g
	})
}

// group reads the list of a group.
func (d *decoder) group(list *hujson.Value) *group {
	g := &group{list: textRangeOf(list)}
	d.strings("a group", list, func(s string, v *hujson.Value) {
		d.part(textRangeOf(v), leftOut, func() { d.member(g, s, v) })
	})
	return g
}

func (d *decoder) member(g *group, s string, v *hujson.Value) {
	if strings.HasPrefix(s, "group:") {
		g.groups = append(g.groups, member{s, textRangeOf(v)})
		return
	}
	if strings.ContainsAny(s, ":/*") {
		d.Errorf(textRangeOf(v), CodeWrongMember, "%q cannot be in a group: groups hold users and other groups", Short(s))
		return
	}
	user, err := parseUser(s)
	if err != nil {
		d.Err(textRangeOf(v), err)
		return
	}
	g.users = append(g.users, member{user, textRangeOf(v)})
}

func decodeHosts(d *decoder, p *Policy, v *hujson.Value) {
	d.members(`"hosts"`, v, func(name string, key, value *hujson.Value) {
		if !d.part(textRangeOf(key), takesAlong, func() { d.host(p, name, key, value) }) {
			p.refused[name] = true
		}
	})
}

func (d *decoder) host(p *Policy, name string, key, value *hujson.Value) {
	if name == AppHost {
		d.Errorf(textRangeOf(key), CodeReservedName, "the host %q is the gateway itself and cannot be defined: choose another name", name)
		return
	}
	if err := checkName("host", name); err != nil {
		d.Err(textRangeOf(key), err)
		return
	}
	h := host{at: textRangeOf(key)}
	if s, ok := d.string("a host's address", value); ok {
		prefix, err := parsePrefix(s)
		if err != nil {
			d.Err(textRangeOf(value), err)
		}
		h.prefix = prefix
	}
	p.hosts[name] = h
}

func decodeIPSets(d *decoder, p *Policy, v *hujson.Value) {
	d.members(`"ipsets"`, v, func(name string, key, value *hujson.Value) {
		if !d.part(textRangeOf(key), takesAlong, func() { d.ipset(p, name, key, value) }) {
			p.refused[name] = true
		}
	})
}

func (d *decoder) ipset(p *Policy, name string, key, value *hujson.Value) {
	if !d.definedName("ipset", name, key) {
		return
	}
	set := &IPSet{At: textRangeOf(key)}
	p.ipsets[name] = set
	d.strings("an IP set", value, func(s string, v *hujson.Value) {
		op := IPSetOp{}
		what := strings.TrimSpace(s)
		if rest, ok := strings.CutPrefix(what, "remove "); ok {
			op.Remove, what = true, strings.TrimSpace(rest)
		} else if rest, ok := strings.CutPrefix(what, "add "); ok {
			what = strings.TrimSpace(rest)
		}
		t, err := ParseSelector(what)
		if err != nil {
			d.Err(textRangeOf(v), err)
			return
		}
		if t.Kind == SelectName {
			t.Kind = SelectHost
		}
		if t.Kind != SelectPrefix && t.Kind != SelectHost && t.Kind != SelectIPSet {
			d.Errorf(textRangeOf(v), CodeWrongMember, "%q cannot be in an IP set: IP sets hold prefixes, hosts and other IP sets", Short(what))
			return
		}
		t.At = textRangeOf(v)
		op.Selector = t
		set.Ops = append(set.Ops, op)
	})
}

func decodeTagOwners(d *decoder, p *Policy, v *hujson.Value) {
	d.members(`"tagOwners"`, v, func(name string, key, value *hujson.Value) {
		if !d.definedName("tag", name, key) {
			return
		}
		o := &tagOwner{at: textRangeOf(key)}
		p.tags[name] = o
		d.strings("a tag's owners", value, func(s string, v *hujson.Value) {
			d.part(textRangeOf(v), leftOut, func() { d.owner(o, s, v) })
		})
	})
}

func (d *decoder) owner(o *tagOwner, s string, v *hujson.Value) {
	if s == "autogroup:admin" {
		return // administrators may give every tag
	}
	t, err := ParseSelector(s)
	if err != nil {
		d.Err(textRangeOf(v), err)
		return
	}
	if t.Kind == SelectName {
		t.Kind, t.Name = SelectUser, Fold(t.Name)
	}
	switch t.Kind {
	case SelectUser, SelectGroup, SelectMembers:
		t.At = textRangeOf(v)
		o.owners = append(o.owners, t)
	default:
		d.Errorf(textRangeOf(v), CodeWrongMember, "%q cannot own a tag: owners are users, groups and autogroup:member; administrators may always", Short(s))
	}
}

// definedName checks the name of an entry of groups, ipsets and tagOwners.
func (d *decoder) definedName(kind, name string, key *hujson.Value) bool {
	rest, ok := strings.CutPrefix(name, kind+":")
	if !ok {
		d.Errorf(textRangeOf(key), CodeBadName, "the name of a %s begins with \"%s:\": write \"%s:%s\"", kind, kind, kind, Short(name))
		return false
	}
	if err := checkName(kind, rest); err != nil {
		d.Err(textRangeOf(key), err)
		return false
	}
	return true
}

// Grant is an entry of "grants" or "acls".
type Grant struct {
	At      TextRange
	Src     []Selector
	Dst     []destination
	Off     bool          // "mfa": "off"
	MFA     time.Duration // 0: not given
	MFAAt   TextRange
	Hours   *Hours
	Expires time.Time
	Note    string
}

// Destination is a selector with the ports that are granted on it.
type destination struct {
	Selector
	Spans []Span
}
