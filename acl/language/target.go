package language

import (
	"net/netip"
	"path"
	"strings"
	"unicode"
)

// maxSocketPath is what a socket's path may have (unix(7): 108 bytes with the final zero).
const maxSocketPath = 107

// Target is where a resource's flows go.
type Target struct {
	Addr netip.Addr // where the text has an address
	Name string     // where it has a name for DNS, in lower case; "localhost" too
	Path string     // of a unix socket
	HTTP bool       // the text says that it is a web page
	At   TextRange
}

// Loopback tells whether the text names the gateway's own loopback interface. What is on
// the gateway's own host may have another address, too: only the gateway knows those.
func (t Target) Loopback() bool {
	return t.Name == localhost || t.Addr.IsValid() && t.Addr.IsLoopback()
}

// Host is the address or the name, as the text has it; "" of a unix socket.
func (t Target) Host() string {
	if t.Addr.IsValid() {
		return t.Addr.String()
	}
	return t.Name
}

const localhost = "localhost"

// parseTo reads "to".
func parseTo(s string, r *draftResource) error {
	const forms = "write HOST:PORT, http://HOST:PORT or unix:/PATH"
	if rest, ok := strings.CutPrefix(s, "unix:"); ok {
		r.To.Path = rest
		switch {
		case !path.IsAbs(rest) || path.Clean(rest) != rest || rest == "/":
			return faultf(CodeBadDestination, "%q is not the path of a socket: write it from the root, like unix:/run/app/app.sock", Short(rest))
		case len(rest) > maxSocketPath:
			return faultf(CodeBadDestination, "the path of a socket has at most %d bytes, this one has %d", maxSocketPath, len(rest))
		case strings.ContainsFunc(rest, func(c rune) bool { return !unicode.IsPrint(c) }):
			return faultf(CodeBadDestination, "the path of the socket has characters that cannot be seen: leave them out")
		}
		return nil
	}
	if rest, ok := strings.CutPrefix(s, "http://"); ok {
		r.To.HTTP, r.port = true, 80
		s = strings.TrimSuffix(rest, "/")
		if strings.ContainsAny(s, "/?#@") {
			return faultf(CodeBadDestination, "a resource is a whole host: write http://%s, without path, query and user", Short(strings.FieldsFunc(s, func(c rune) bool { return strings.ContainsRune("/?#", c) })[0]))
		}
	} else if scheme, rest, ok := strings.Cut(s, "://"); ok {
		return faultf(CodeUnsupported, "%q is not supported: for any protocol but http write HOST:PORT, like %q", Short(scheme+"://"), Short(strings.TrimSuffix(rest, "/")))
	}
	host, port, err := splitTo(s)
	if err != nil {
		return err
	}
	if port != "" {
		n, ok := parsePort(port)
		if !ok || n == 0 {
			return faultf(CodeBadPort, "%q is not a port: write a number from 1 to 65535; several stand in \"ports\"", Short(port))
		}
		r.port = uint16(n)
	}
	if host == "" {
		return faultf(CodeBadDestination, "%q names no host: %s", Short(s), forms)
	}
	if looksLikeAddress(host) {
		return r.To.address(host)
	}
	return r.To.hostName(host)
}

// splitTo takes "HOST:PORT" or "HOST" apart.
func splitTo(s string) (host, port string, err error) {
	if rest, ok := strings.CutPrefix(s, "["); ok {
		host, after, ok := strings.Cut(rest, "]")
		if !ok || after != "" && after[0] != ':' || after == ":" {
			return "", "", faultf(CodeBadDestination, "%q is not a host with its port: write \"[fd00::1]:443\"", Short(s))
		}
		return host, strings.TrimPrefix(after, ":"), nil
	}
	if strings.Count(s, ":") > 1 {
		if _, err := netip.ParseAddr(s); err == nil {
			return s, "", nil
		}
		return "", "", faultf(CodeBadDestination, "%q is not a host with its port: write an IPv6 address in brackets, like \"[fd00::1]:443\"", Short(s))
	}
	host, port, both := strings.Cut(s, ":")
	if both && port == "" {
		return "", "", faultf(CodeBadPort, "%q has no port behind its colon: write one", Short(s))
	}
	return host, port, nil
}

// address reads a target's address, of which there is one spelling.
func (t *Target) address(s string) error {
	if strings.Contains(s, "/") {
		return faultf(CodeBadAddress, "%q is a network, and a resource is one host: grant the network as a host, or name one address", Short(s))
	}
	p, err := parsePrefix(s)
	if err != nil {
		return err
	}
	a := p.Addr()
	switch {
	case a.String() != s:
		return faultf(CodeBadAddress, "write the address %s as %s", Short(s), a)
	case a == netip.IPv6Loopback():
		return faultf(CodeBadAddress, "what listens on ::1 alone cannot be told who is calling: let it listen on 127.0.0.1, and write localhost")
	case a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return faultf(CodeBadAddress, "%s is no host's address that a gateway can call: write the address of one host", a)
	}
	t.Addr = a
	return nil
}

// hostName reads a target's name.
func (t *Target) hostName(s string) error {
	name := Fold(strings.TrimSuffix(s, "."))
	ok := name != "" && len(name) <= 253
	for label := range strings.SplitSeq(name, ".") {
		ok = ok && label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-'
		for _, c := range []byte(label) {
			ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_')
		}
	}
	if !ok {
		return faultf(CodeBadName, "%q is not a host's name: write one like nas.lan, with letters, digits, \"-\" and \".\" (other scripts as xn--…), or an address", Short(s))
	}
	if strings.Trim(name[strings.LastIndexByte(name, '.')+1:], "0123456789") == "" {
		return faultf(CodeBadAddress, "%q is neither an address nor a host's name: write an address like 10.6.0.2 or a name like nas.lan", Short(s))
	}
	t.Name = name
	return nil
}
