package review

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// Question is what is wanted of a destination: a protocol, and a port where it has ports.
type Question struct {
	protos []uint8 // of IPv4, of IPv6 where that is another
	port   uint16
}

// ParseQuestion reads the far end of a flow as tests write it, with one port: "db:5432",
// which is TCP, "udp:db:53", "icmp:db". With port given as a grant writes it ("tcp:5432",
// "443", "icmp"), destination is the name alone.
func ParseQuestion(destination, port string) (name string, q Question, err error) {
	if port != "" {
		q, err = parseWanted(port)
		return unbracketed(destination), q, err
	}
	protos := []uint8{language.ProtoTCP}
	// A host may be called tcp, so "tcp:443" is that host; "tcp:db:443" is the protocol.
	if word, rest, ok := strings.Cut(destination, ":"); ok {
		if p, known := language.Protocols[strings.ToLower(word)]; known && (!language.HasPorts(p[0]) || strings.Contains(rest, ":")) {
			protos, destination = p, rest
		}
	}
	if !language.HasPorts(protos[0]) {
		return unbracketed(strings.TrimSuffix(destination, ":*")), Question{protos: protos}, nil
	}
	name, ports, err := language.SplitPorts(destination)
	if err != nil {
		return "", Question{}, fmt.Errorf("%w, or ask for \"icmp\"", err)
	}
	q, err = onePort(protos, ports)
	return name, q, err
}

// unbracketed is an address without the brackets that a port behind it would need.
func unbracketed(s string) string {
	if bare, ok := strings.CutPrefix(s, "["); ok {
		return strings.TrimSuffix(bare, "]")
	}
	return s
}

// parseWanted reads "tcp:5432", "5432", which is TCP, "icmp" or "47:*".
func parseWanted(s string) (Question, error) {
	proto, ports, both := strings.Cut(s, ":")
	if !both {
		if _, err := language.ParsePorts(s); err == nil {
			return onePort([]uint8{language.ProtoTCP}, s)
		}
		ports = "*"
	}
	protos, err := language.ParseProto(proto)
	if err != nil {
		return Question{}, err
	}
	return onePort(protos, ports)
}

func onePort(protos []uint8, ports string) (Question, error) {
	windows, err := language.ParsePorts(ports)
	switch {
	case err != nil:
		return Question{}, err
	case !language.HasPorts(protos[0]) && windows != nil:
		return Question{}, fmt.Errorf("protocol %d has no ports: leave %q out", protos[0], language.Short(ports))
	case !language.HasPorts(protos[0]):
		return Question{protos: protos}, nil
	case len(windows) != 1 || windows[0].End != windows[0].Start+1:
		return Question{}, fmt.Errorf("%q is more than one port: ask about one at a time", language.Short(ports))
	}
	return Question{protos, uint16(windows[0].Start)}, nil
}

// Packet is the first packet of such a flow.
func (q Question) Packet(src, dst netip.Addr) rules.Packet {
	p := rules.Packet{Src: src, Dst: dst, Proto: q.protos[0], DstPort: q.port}
	if len(q.protos) > 1 && !dst.Is4() {
		p.Proto = q.protos[1]
	}
	return p
}

// String is the question as a grant writes it: "tcp:5432", "icmp".
func (q Question) String() string {
	switch {
	case language.HasPorts(q.protos[0]):
		return language.SpanText(q.protos[0], q.port, q.port)
	case q.protos[0] == language.ProtoICMP || q.protos[0] == language.ProtoICMPv6:
		return "icmp"
	default:
		return language.SpanText(q.protos[0], 0, 65535)
	}
}

// What a name cannot be turned into an address for.
var (
	ErrNoHost = errors.New("no such host")
	ErrNotOne = errors.New("more than one address")
)

// Addresses are those of a resource or a host of the policy, of "app", of an address; of a network its
// first one, and network says so. ErrNoHost means that the name may be a user's.
func Addresses(r *rules.Ruleset, name string) (addrs []netip.Addr, network bool, err error) {
	t, err := language.ParseSelector(name)
	if err != nil {
		return nil, false, err
	}
	switch t.Kind {
	case language.SelectName, language.SelectHost:
		if t.Name == language.AppHost {
			for _, a := range r.Options().Gateway {
				addrs = append(addrs, a.Unmap())
			}
			return addrs, false, nil
		}
		if list := r.Options().Services[t.Name]; r.Policy().Resource(t.Name) != nil && len(list) > 0 {
			for _, a := range list {
				addrs = append(addrs, a.Unmap())
			}
			return addrs, false, nil
		}
		var ok bool
		if t.Prefix, ok = r.Policy().HostPrefix(t.Name); !ok {
			return nil, false, ErrNoHost
		}
	case language.SelectPrefix:
	case language.SelectUser:
		return nil, false, ErrNoHost
	default:
		return nil, false, fmt.Errorf("%q is %w: name a device, a host or an address", language.Short(name), ErrNotOne)
	}
	a := t.Prefix.Addr()
	if t.Prefix.Bits() < a.BitLen()-1 {
		a = a.Next() // the first of a network is nobody's
	}
	return []netip.Addr{a}, !t.Prefix.IsSingleIP(), nil
}
