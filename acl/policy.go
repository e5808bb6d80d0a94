package acl

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tailscale/hujson"
)

// Policy is a parsed policy file. It is immutable.
type Policy struct {
	src      *source
	grants   []*grant // of "acls" and "grants", in the order of the text
	groups   map[string]*group
	hosts    map[string]host
	ipsets   map[string]*ipset
	tags     map[string]*tagOwner
	tests    []*test
	warnings ErrorList

	groupsOf layered[[]string] // user -> the groups that she is in, nested ones included; sorted
	values   int               // in the text, as measure counts them
}

// group is an entry of "groups".
type group struct {
	at     place
	list   place // with its brackets
	users  []member
	groups []member
	flat   []string // every user, of nested groups too; sorted
}

type member struct {
	name string
	at   place
}

// host is an entry of "hosts".
type host struct {
	at     place
	prefix netip.Prefix
}

// ipset is an entry of "ipsets": its elements work in order.
type ipset struct {
	at  place
	ops []ipsetOp
}

type ipsetOp struct {
	remove bool
	target target // prefixTarget, hostTarget or ipsetTarget
}

// tagOwner is an entry of "tagOwners".
type tagOwner struct {
	at     place
	owners []target
}

// Parse reads a policy in HuJSON. Its error is an ErrorList with every fault of the
// text, each with line and column. An empty text is an empty policy, which denies
// everything.
func Parse(text []byte) (*Policy, error) {
	d := &decoder{faults: faults{src: newSource(slices.Clone(text))}, zones: map[string]*time.Location{}}
	p := &Policy{src: d.src, groups: map[string]*group{}, hosts: map[string]host{},
		ipsets: map[string]*ipset{}, tags: map[string]*tagOwner{}}
	if len(strings.TrimSpace(string(text))) > 0 {
		v, ok := d.parseHuJSON()
		p.values = d.values
		if ok && file.decode(d, p, v) {
			d.resolve(p)
		}
	}
	list := d.sorted()
	if list.Fatal() {
		return nil, list
	}
	p.warnings = list
	return p, nil
}

// file is the grammar's outermost object.
var file = &object[Policy]{
	what: "a policy",
	fields: []field[Policy]{
		{name: "groups", doc: "named lists of users", kind: mapOf(groupNameKind, listOf(memberKind)), decode: decodeGroups},
		{name: "hosts", doc: "names for addresses and prefixes", kind: mapOf(hostNameKind, prefixKind), decode: decodeHosts},
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
		g.at = placeOf(key)
		p.groups[name] = g
	})
}

// group reads the list of a group.
func (d *decoder) group(list *hujson.Value) *group {
	g := &group{list: placeOf(list)}
	d.strings("a group", list, func(s string, v *hujson.Value) {
		if strings.HasPrefix(s, "group:") {
			g.groups = append(g.groups, member{s, placeOf(v)})
			return
		}
		if strings.ContainsAny(s, ":/*") {
			d.errorf(placeOf(v), "%q cannot be in a group: groups hold users and other groups", short(s))
			return
		}
		user, err := parseUser(s)
		if err != nil {
			d.errorf(placeOf(v), "%v", err)
			return
		}
		g.users = append(g.users, member{user, placeOf(v)})
	})
	return g
}

func decodeHosts(d *decoder, p *Policy, v *hujson.Value) {
	d.members(`"hosts"`, v, func(name string, key, value *hujson.Value) {
		if name == appHost {
			d.errorf(placeOf(key), "the host %q is the gateway itself and cannot be defined: choose another name", name)
			return
		}
		if err := checkName("host", name); err != nil {
			d.errorf(placeOf(key), "%v", err)
			return
		}
		h := host{at: placeOf(key)}
		if s, ok := d.string("a host's address", value); ok {
			prefix, err := parsePrefix(s)
			if err != nil {
				d.errorf(placeOf(value), "%v", err)
			}
			h.prefix = prefix
		}
		p.hosts[name] = h
	})
}

func decodeIPSets(d *decoder, p *Policy, v *hujson.Value) {
	d.members(`"ipsets"`, v, func(name string, key, value *hujson.Value) {
		if !d.definedName("ipset", name, key) {
			return
		}
		set := &ipset{at: placeOf(key)}
		p.ipsets[name] = set
		d.strings("an IP set", value, func(s string, v *hujson.Value) {
			op := ipsetOp{}
			what := strings.TrimSpace(s)
			if rest, ok := strings.CutPrefix(what, "remove "); ok {
				op.remove, what = true, strings.TrimSpace(rest)
			} else if rest, ok := strings.CutPrefix(what, "add "); ok {
				what = strings.TrimSpace(rest)
			}
			t, err := parseTarget(what)
			if err != nil {
				d.errorf(placeOf(v), "%v", err)
				return
			}
			if t.kind == nameTarget {
				t.kind = hostTarget
			}
			if t.kind != prefixTarget && t.kind != hostTarget && t.kind != ipsetTarget {
				d.errorf(placeOf(v), "%q cannot be in an IP set: IP sets hold prefixes, hosts and other IP sets", short(what))
				return
			}
			t.at = placeOf(v)
			op.target = t
			set.ops = append(set.ops, op)
		})
	})
}

func decodeTagOwners(d *decoder, p *Policy, v *hujson.Value) {
	d.members(`"tagOwners"`, v, func(name string, key, value *hujson.Value) {
		if !d.definedName("tag", name, key) {
			return
		}
		o := &tagOwner{at: placeOf(key)}
		p.tags[name] = o
		d.strings("a tag's owners", value, func(s string, v *hujson.Value) {
			if s == "autogroup:admin" {
				return // administrators may give every tag
			}
			t, err := parseTarget(s)
			if err != nil {
				d.errorf(placeOf(v), "%v", err)
				return
			}
			if t.kind == nameTarget {
				t.kind, t.name = userTarget, strings.ToLower(t.name)
			}
			switch t.kind {
			case userTarget, groupTarget, memberTarget:
				t.at = placeOf(v)
				o.owners = append(o.owners, t)
			default:
				d.errorf(placeOf(v), "%q cannot own a tag: owners are users, groups and autogroup:member; administrators may always", short(s))
			}
		})
	})
}

// definedName checks the name of an entry of groups, ipsets and tagOwners.
func (d *decoder) definedName(kind, name string, key *hujson.Value) bool {
	rest, ok := strings.CutPrefix(name, kind+":")
	if !ok {
		d.errorf(placeOf(key), "the name of a %s begins with \"%s:\": write \"%s:%s\"", kind, kind, kind, short(name))
		return false
	}
	if err := checkName(kind, rest); err != nil {
		d.errorf(placeOf(key), "%v", err)
		return false
	}
	return true
}

// Warnings are what is doubtful in the text though it means something.
func (p *Policy) Warnings() ErrorList { return slices.Clone(p.warnings) }

// Faults collects what else is found wrong with the text.
func (p *Policy) Faults() *faults { return &faults{src: p.src} }

// Position is the line and column, both from 1, at which a part of the text begins.
func (p *Policy) Position(at place) (line, column int) { return p.src.position(at.start) }

// Text is the text that was parsed.
func (p *Policy) Text() []byte { return slices.Clone(p.src.text) }

// Groups are the names of the groups, sorted.
func (p *Policy) Groups() []string { return slices.Sorted(maps.Keys(p.groups)) }

// Members are the users of a group, those of nested groups included, sorted and in
// lower case; ok is false if there is no such group.
func (p *Policy) Members(group string) (users []string, ok bool) {
	g := p.groups[group]
	if g == nil {
		return nil, false
	}
	return slices.Clone(g.flat), true
}

// Listed are the users and groups that stand in a group itself, in the order of the text.
func (p *Policy) Listed(group string) []string {
	g := p.groups[group]
	if g == nil {
		return nil
	}
	all := slices.Concat(g.users, g.groups)
	slices.SortFunc(all, func(a, b member) int { return a.at.start - b.at.start })
	out := make([]string, len(all))
	for i, m := range all {
		out[i] = m.name
	}
	return out
}

// GroupsOf are the groups that a user is in, through nested groups too, sorted.
func (p *Policy) GroupsOf(user string) []string {
	return slices.Clone(p.groupsOfLower(strings.ToLower(user)))
}

// groupsOfLower is GroupsOf of a name in lower case. The list must not be changed.
func (p *Policy) groupsOfLower(user string) []string {
	list, _ := p.groupsOf.get([]byte(user))
	return list
}

// isIn tells whether a user, in lower case, is in a group.
func (p *Policy) isIn(group, user string) bool {
	return slices.Contains(p.groupsOfLower(user), group)
}

// chain says how a group comes to have a user: "group:all through group:ops".
func (p *Policy) chain(name, user string) string {
	g := p.groups[name]
	if slices.ContainsFunc(g.users, func(m member) bool { return m.name == user }) {
		return name
	}
	for _, m := range g.groups {
		if _, in := slices.BinarySearch(p.groups[m.name].flat, user); in {
			return name + " through " + p.chain(m.name, user)
		}
	}
	return name
}

// Tags are the tags that there are, sorted.
func (p *Policy) Tags() []string { return slices.Sorted(maps.Keys(p.tags)) }

// MayTag tells whether a user, who is no administrator, may give a tag to a device.
func (p *Policy) MayTag(user, tag string) bool {
	o := p.tags[tag]
	if o == nil {
		return false
	}
	user = strings.ToLower(user)
	return slices.ContainsFunc(o.owners, func(t target) bool {
		switch t.kind {
		case memberTarget:
			return true
		case userTarget:
			return t.name == user
		default:
			return p.isIn(t.name, user)
		}
	})
}

// Hosts are the names of the hosts, the gateway's "app" included, sorted.
func (p *Policy) Hosts() []string {
	return slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(p.hosts)), appHost)))
}

// HostPrefix is what a host stands for; ok is false if there is none, or it is the gateway.
func (p *Policy) HostPrefix(name string) (prefix netip.Prefix, ok bool) {
	h, ok := p.hosts[name]
	return h.prefix, ok
}

// IPSets are the names of the IP sets, sorted.
func (p *Policy) IPSets() []string { return slices.Sorted(maps.Keys(p.ipsets)) }

// Entries are the grants of "acls" and "grants", in the order of the text. They must not
// be changed.
func (p *Policy) Entries() []*grant { return p.grants }

// Tests are the entries of "tests". They must not be changed.
func (p *Policy) Tests() []*test { return p.tests }

// IPSet is an entry of "ipsets"; nil if there is none.
func (p *Policy) IPSet(name string) *ipset { return p.ipsets[name] }

// grant is an entry of "grants" or "acls".
type grant struct {
	at      place
	src     []target
	dst     []destination
	off     bool          // "mfa": "off"
	mfa     time.Duration // 0: not given
	mfaAt   place
	hours   *hours
	expires time.Time
	note    string
}

// destination is a target with the ports that are granted on it.
type destination struct {
	target
	spans []span
}
