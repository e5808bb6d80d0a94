package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"vpnd/acl/language"
)

const (
	mostHosts = 64 // connects to hosts of the policy, all at once
	hostWait  = time.Second
	protoTCP  = 6
)

// target is a single host that a grant leads to.
type target struct {
	at   netip.AddrPort
	line int
}

// grants looks at what the policy promises: to devices that exist, by routes that configs
// have, to hosts that answer.
func (g *Gateway) grants(ctx context.Context) (out []*Finding) {
	if g.Rules == nil {
		return nil
	}
	used := map[int]bool{} // rules that a device is a source of
	nobody := true         // has enrolled yet: then no grant is to blame
	for _, e := range g.Rules.AllEnrolled() {
		nobody = false
		g.Rules.RulesFrom(e.Role).Each(func(n int) bool { used[n] = true; return true })
	}
	book := g.Rules.AddressBook()
	idle, far := map[int]bool{}, map[int][]string{}
	var targets []target
	for n, r := range g.Rules.Rules() {
		info, ok := g.Rules.Grant(r.Grant)
		if !ok {
			continue
		}
		// What begins at an address needs no device.
		if _, seen := idle[r.Grant]; !seen {
			idle[r.Grant] = true
		}
		if used[n] || slices.ContainsFunc(r.Src, book.Has) {
			idle[r.Grant] = false
		}
		for _, t := range r.Dst {
			if t.Kind == language.SelectAny || !book.Has(t) {
				continue
			}
			for _, p := range book.Of(t) {
				if overlaps(p, g.Settings.Network) {
					continue
				}
				if !overlaps(p, g.Settings.Routes) {
					if s := p.String(); !slices.Contains(far[r.Grant], s) {
						far[r.Grant] = append(far[r.Grant], s)
					}
					continue
				}
				if port := tcpPort(r.Spans); p.IsSingleIP() && port != 0 {
					t := target{netip.AddrPortFrom(p.Addr(), port), info.Line}
					if !slices.ContainsFunc(targets, func(x target) bool { return x.at == t.at }) {
						targets = append(targets, t)
					}
				}
			}
		}
	}
	for n, info := range g.Rules.Grants() {
		if idle[n] && !nobody {
			out = append(out, find("grant_idle", "line", info.Line, "text", info.Text))
		}
		for _, p := range far[n] {
			out = append(out, find("grant_unrouted", "line", info.Line, "target", p, "text", info.Text))
		}
	}
	if out == nil {
		out = append(out, find("grants_ok", "count", len(g.Rules.Grants())))
	}
	return append(out, hosts(ctx, targets)...)
}

func overlaps(p netip.Prefix, list []netip.Prefix) bool {
	return slices.ContainsFunc(list, p.Overlaps)
}

// some names targets, but not a screenful.
func some(targets []target) string {
	const most = 8
	var names []string
	for _, t := range targets[:min(len(targets), most)] {
		names = append(names, t.at.String())
	}
	text := strings.Join(names, ", ")
	if more := len(targets) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// tcpPort is the first TCP port of a grant that is for few: of a wide range nothing is known
// to listen on the first.
func tcpPort(spans []language.Span) uint16 {
	for _, s := range spans {
		if s.Proto == protoTCP && s.Last-s.First < 16 {
			return s.First
		}
	}
	return 0
}

// hosts tries to connect, as the gateway does for its clients.
func hosts(ctx context.Context, targets []target) (out []*Finding) {
	if len(targets) == 0 {
		return nil
	}
	tried := targets[:min(len(targets), mostHosts)]
	errs := make([]error, len(tried))
	var wg sync.WaitGroup
	for i, t := range tried {
		wg.Go(func() {
			d := net.Dialer{Timeout: hostWait}
			c, err := d.DialContext(ctx, "tcp", t.at.String())
			if err == nil {
				c.Close()
			}
			errs[i] = err
		})
	}
	wg.Wait()
	good := 0
	for i, t := range tried {
		var timeout net.Error
		switch err := errs[i]; {
		case err == nil:
			good++
		case errors.Is(err, syscall.ECONNREFUSED):
			out = append(out, find("host_closed", "target", t.at, "line", strconv.Itoa(t.line)))
		case errors.As(err, &timeout) && timeout.Timeout():
			out = append(out, find("host_silent", "target", t.at, "line", strconv.Itoa(t.line), "why", "nothing within "+hostWait.String()))
		default:
			var sys syscall.Errno
			why := "no way there"
			if errors.As(err, &sys) {
				why = sys.Error()
			}
			out = append(out, find("host_silent", "target", t.at, "line", strconv.Itoa(t.line), "why", why))
		}
	}
	if good == len(tried) {
		out = append(out, find("host_ok", "count", good))
	}
	if len(targets) > len(tried) {
		out = append(out, find("hosts_many", "most", len(tried), "count", len(targets), "rest", some(targets[len(tried):])))
	}
	return out
}
