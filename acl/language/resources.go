package language

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/tailscale/hujson"
)

// MaxResources is the most entries of "resources".
const MaxResources = 10_000

// MaxTitle is the most characters of a resource's title.
const MaxTitle = 100

// Resource is an entry of "resources": one named thing with an address of its own inside of
// the tunnel. It is immutable.
type Resource struct {
	Name  string
	At    TextRange // the name
	To    Target
	Ports []Span // inside of the tunnel, sorted and disjoint: TCP and UDP alone
	// ToPort is the target's port for the only port of Ports; 0: each port is the target's, too.
	ToPort uint16
	Title  string // for people; "" if none is given
	Note   string
	// ProxyV2: a TCP target is told who calls by the PROXY protocol.
	ProxyV2 bool
	// FromGateway: the target is called from the gateway's tunnel address, also where it is on
	// the gateway's own host.
	FromGateway bool
}

// ToText is the target as "to" would say it, with its port where there is one.
func (r *Resource) ToText() string {
	if r.To.Path != "" {
		return "unix:" + r.To.Path
	}
	host := r.To.Host()
	if port, ok := r.TargetPort(); ok {
		if r.To.Addr.Is6() {
			host = "[" + host + "]"
		}
		host += ":" + strconv.Itoa(int(port))
	}
	if r.To.HTTP {
		host = "http://" + host
	}
	return host
}

// TargetPort is the target's port where it has one alone.
func (r *Resource) TargetPort() (uint16, bool) {
	switch {
	case r.To.Path != "" || len(r.Ports) != 1 || r.Ports[0].First != r.Ports[0].Last:
		return 0, false
	case r.ToPort != 0:
		return r.ToPort, true
	}
	return r.Ports[0].First, true
}

// Resources are the resources by their names, sorted.
func (p *Policy) Resources() []string { return slices.Sorted(maps.Keys(p.resources)) }

// Resource is a resource by its name; nil if there is none.
func (p *Policy) Resource(name string) *Resource { return p.resources[name] }

// draftResource is a resource while it is read.
type draftResource struct {
	Resource
	to     string
	port   uint16 // of "to"; 0: none
	inside uint16 // "port"; 0: none
	ports  []Span
	given  struct{ to, ports, port, proxy, from TextRange }
}

var resourceObject = &object[draftResource]{
	what: "a resource",
	fields: []field[draftResource]{
		{name: "to", doc: "where it really is: \"10.6.0.2:5432\", \"nas.lan\" with \"ports\", \"http://localhost:3000\", \"unix:/run/app.sock\"",
			required: true, kind: toKind, decode: func(d *decoder, r *draftResource, v *hujson.Value) {
				if s, ok := d.string(`"to"`, v); ok {
					r.given.to, r.to = textRangeOf(v), s
					if err := parseTo(s, r); err != nil {
						d.Err(textRangeOf(v), err)
					}
					r.To.At = textRangeOf(v)
				}
			}},
		{name: "ports", doc: "the target's ports where there are several: \"tcp:445\", \"udp:53\", \"tcp:8000-8099\"",
			kind: listOf(ipKind), decode: func(d *decoder, r *draftResource, v *hujson.Value) {
				r.given.ports = textRangeOf(v)
				d.strings(`"ports"`, v, func(s string, v *hujson.Value) {
					list, err := parseResourcePorts(s)
					if err != nil {
						d.Err(textRangeOf(v), err)
					}
					r.ports = append(r.ports, list...)
				})
			}},
		{name: "port", doc: "the port inside of the tunnel where it is not the target's",
			kind: kind{"type": "integer", "minimum": 1, "maximum": 65535}, decode: func(d *decoder, r *draftResource, v *hujson.Value) {
				r.given.port = textRangeOf(v)
				n, ok := parsePort(strings.TrimSpace(string(d.src.text[v.StartOffset:v.EndOffset])))
				if !ok || n == 0 {
					d.Errorf(textRangeOf(v), CodeBadPort, "%s is not a port: write a number from 1 to 65535, without quotes", Short(string(d.src.text[v.StartOffset:v.EndOffset])))
					return
				}
				r.inside = uint16(n)
			}},
		{name: "title", doc: "what people call it", kind: kind{"type": "string", "maxLength": MaxTitle},
			decode: func(d *decoder, r *draftResource, v *hujson.Value) {
				if s, ok := d.string(`"title"`, v); ok {
					if err := checkTitle(s); err != nil {
						d.Err(textRangeOf(v), err)
					}
					r.Title = s
				}
			}},
		{name: "note", doc: "what people should know about it", kind: noteKind,
			decode: func(d *decoder, r *draftResource, v *hujson.Value) {
				if s, ok := d.string(`"note"`, v); ok {
					if len([]rune(s)) > MaxNote {
						d.Errorf(textRangeOf(v), CodeTooLong, "the note has more than %d characters: use a comment", MaxNote)
					}
					r.Note = s
				}
			}},
		{name: "proxy", doc: "\"v2\": a TCP target is told who is calling by the PROXY protocol", kind: kind{"const": "v2"},
			decode: func(d *decoder, r *draftResource, v *hujson.Value) {
				r.given.proxy = textRangeOf(v)
				if s, ok := d.string(`"proxy"`, v); ok && s != "v2" {
					d.Errorf(textRangeOf(v), CodeUnsupported, "the proxy %q is not supported: there is \"v2\", the PROXY protocol's second version", Short(s))
				}
				r.ProxyV2 = true
			}},
		{name: "from", doc: "\"gateway\": a target on the gateway's own host is called from the gateway's tunnel address", kind: kind{"const": "gateway"},
			decode: func(d *decoder, r *draftResource, v *hujson.Value) {
				r.given.from = textRangeOf(v)
				if s, ok := d.string(`"from"`, v); ok && s != "gateway" {
					d.Errorf(textRangeOf(v), CodeUnsupported, "the source %q is not supported: there is \"gateway\" alone, the gateway's tunnel address", Short(s))
				}
				r.FromGateway = true
			}},
	},
	foreign: map[string]string{
		"ip":      "the ports of a resource stand in \"to\" or \"ports\"",
		"dst":     "write \"to\"",
		"address": "the address inside of the tunnel is vpnd's to give; the target stands in \"to\"",
	},
}

func decodeResources(d *decoder, p *Policy, v *hujson.Value) {
	d.members(`"resources"`, v, func(name string, key, value *hujson.Value) {
		if len(p.resources) == MaxResources && !d.stored {
			d.Errorf(textRangeOf(key), CodeOverLimit, "more than %d resources: publish a whole network by a route instead", MaxResources)
		}
		if !d.part(textRangeOf(key), takesAlong, func() { d.resource(p, name, key, value) }) {
			delete(p.resources, name)
			p.refused[name] = true
		}
	})
}

func (d *decoder) resource(p *Policy, name string, key, value *hujson.Value) {
	r := &draftResource{Resource: Resource{Name: name, At: textRangeOf(key)}}
	p.resources[name] = &r.Resource // so that what names it is no fault of its own
	if name == AppHost {
		d.Errorf(textRangeOf(key), CodeReservedName, "the name %q is the gateway's own app: choose another name for the resource", name)
		return
	}
	if err := checkName("resource", name); err != nil {
		d.Err(textRangeOf(key), err)
		return
	}
	before := len(d.List)
	if resourceObject.decode(d, r, value) && before == len(d.List) {
		d.portsOf(r)
	}
}

// portsOf puts together what "to", "ports" and "port" say.
func (d *decoder) portsOf(r *draftResource) {
	ports := r.given.ports != TextRange{}
	switch {
	case ports && r.To.Path != "":
		d.Errorf(r.given.ports, CodeBadPort, "a unix socket has no ports: write \"port\" for the one inside of the tunnel")
	case ports && r.port != 0:
		d.Errorf(r.given.ports, CodeBadPort, "the port stands in \"to\" already: keep it there, or write \"to\" without one")
	case ports && r.inside != 0:
		d.Errorf(r.given.port, CodeBadPort, "\"port\" is for a target with one port: write it in \"to\", or leave \"port\" out")
	case ports && len(r.ports) == 0:
		d.Errorf(r.given.ports, CodeBadPort, "no ports are given: write some like \"tcp:445\"")
	case ports:
		r.Ports = mergeSpans(r.ports)
	case r.To.Path != "" && r.inside == 0:
		d.Errorf(r.given.to, CodeMissingKey, "a resource at a unix socket needs \"port\": the one inside of the tunnel, like 80")
	case r.To.Path == "" && r.port == 0:
		d.Errorf(r.given.to, CodeBadDestination, "%q names no port: write one behind it like %q, or \"ports\" for several", Short(r.to), Short(r.to)+":443")
	default:
		inside := r.inside
		if inside == 0 && r.To.HTTP {
			inside = 80
		}
		if inside != 0 && inside != r.port {
			r.ToPort = r.port
		} else {
			inside = r.port
		}
		if r.To.Path != "" {
			inside, r.ToPort = r.inside, 0
		}
		r.Ports = []Span{{ProtoTCP, inside, inside}}
	}
	udp := slices.ContainsFunc(r.Ports, func(s Span) bool { return s.Proto == ProtoUDP })
	if r.ProxyV2 && udp {
		d.Errorf(r.given.proxy, CodeUnsupported, "the PROXY protocol tells who calls by TCP alone: leave the UDP ports out, or publish them as a resource of their own")
	}
	if r.To.Path != "" && r.FromGateway {
		d.Errorf(r.given.from, CodeUnsupported, "whoever calls a unix socket has no address: leave \"from\" out")
	}
}

// parseResourcePorts reads an element of "ports". Pings reach no resource: it is ports.
func parseResourcePorts(s string) ([]Span, error) {
	list, err := parseIP(s)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(s, ":") || strings.HasPrefix(s, "*:") { // without a protocol
		list = slices.DeleteFunc(list, func(s Span) bool { return !isResourceProto(s.Proto) })
	}
	for _, x := range list {
		if !isResourceProto(x.Proto) {
			return nil, faultf(CodeBadProtocol, "%q cannot be published: a resource has TCP and UDP ports; grant a host for other protocols", Short(s))
		}
	}
	if len(list) == 0 {
		return nil, faultf(CodeBadProtocol, "%q cannot be published: a resource has TCP and UDP ports", Short(s))
	}
	return list, nil
}

func isResourceProto(p uint8) bool { return p == ProtoTCP || p == ProtoUDP }

// checkTitle refuses what would look like something else, or like nothing, on a page or a
// terminal.
func checkTitle(s string) error {
	switch {
	case strings.TrimSpace(s) != s || s == "":
		return faultf(CodeBadName, "a title begins and ends with something that can be seen")
	case len([]rune(s)) > MaxTitle:
		return faultf(CodeTooLong, "the title has more than %d characters: put the rest into \"note\"", MaxTitle)
	case strings.ContainsFunc(s, func(c rune) bool {
		return unicode.IsControl(c) || c >= 0x202A && c <= 0x202E || c >= 0x2066 && c <= 0x2069 || c == 0x2028 || c == 0x2029
	}):
		return faultf(CodeBadName, "the title has control characters: leave them out")
	}
	return nil
}

// on gives the ports of a grant on a resource: what the grant's ports and the resource's have
// in common. A grant of "tcp:5432" on a resource of that port, of "5432" and of "*" are one;
// ports that the resource has not are a fault.
func (r *Resource) on(granted []Span) ([]Span, error) {
	if granted == nil {
		return r.Ports, nil
	}
	var common []Span
	for _, g := range granted {
		if !slices.ContainsFunc(r.Ports, func(s Span) bool { return s.Proto == g.Proto }) {
			continue
		}
		covered := 0
		for _, own := range r.Ports {
			if own.Proto == g.Proto && g.First <= own.Last && own.First <= g.Last {
				x := Span{g.Proto, max(g.First, own.First), min(g.Last, own.Last)}
				covered += int(x.Last) - int(x.First) + 1
				common = append(common, x)
			}
		}
		all := g.First == 0 && g.Last == 65535
		if !all && covered != int(g.Last)-int(g.First)+1 {
			return nil, faultf(CodeBadPort, "the resource %q has %s, not all of %s: leave \"ip\" out, or name ports of the resource", r.Name, SpansText(r.Ports), SpanText(g.Proto, g.First, g.Last))
		}
	}
	if len(common) == 0 {
		return nil, faultf(CodeBadPort, "the resource %q has %s, and nothing of %s: leave \"ip\" out, or name ports of the resource", r.Name, SpansText(r.Ports), SpansText(granted))
	}
	return mergeSpans(common), nil
}

// Common are the ports that a grant of everything gives on a resource; it may be none.
func (r *Resource) Common(granted []Span) []Span {
	var common []Span
	for _, g := range granted {
		for _, own := range r.Ports {
			if own.Proto == g.Proto && g.First <= own.Last && own.First <= g.Last {
				common = append(common, Span{g.Proto, max(g.First, own.First), min(g.Last, own.Last)})
			}
		}
	}
	return mergeSpans(common)
}
