package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"vpnd/acl/language"
	"vpnd/internal/dataplane/relay"
	"vpnd/internal/locals"
)

// Locals is the list of what resources may name on this gateway's own host.
type Locals interface {
	Allow(network string, target netip.AddrPort, path string) error
	Add(targets []string) error
	Targets() []string
}

// Resource is a published thing of the policy in force.
type Resource struct {
	*language.Resource
	Addrs   []netip.Addr // inside of the tunnel
	Sources []string     // of the grants that lead to it by name
	Trouble error        // why it leads nowhere, or to where it led last
}

// Resources returns a resource of the policy in force, or all.
func (s *Service) Resources(name string) ([]Resource, error) {
	v := s.View()
	p := language.ParseStored([]byte(v.Policy().Text))
	names := p.Resources()
	if name != "" {
		names = []string{name}
	}
	places := v.PolicyOptions().Services
	var out []Resource
	for _, n := range names {
		r := p.Resource(n)
		if r == nil {
			return nil, Refuse("no_resource", n)
		}
		x := Resource{Resource: r, Addrs: places[n]}
		for _, g := range p.Grants() {
			for _, d := range g.Dst {
				if d.Kind != language.SelectResource || d.Name != n {
					continue
				}
				for _, src := range g.Src {
					if !slices.Contains(x.Sources, src.String()) {
						x.Sources = append(x.Sources, src.String())
					}
				}
			}
		}
		_, x.Trouble = s.target(r)
		out = append(out, x)
	}
	return out, nil
}

// target is where a resource leads now.
func (s *Service) target(r *language.Resource) ([]netip.Addr, error) {
	switch {
	case r.To.Path != "":
		return nil, s.local("unix", netip.AddrPort{}, r.To.Path)
	case r.To.Addr.IsValid() || r.To.Loopback():
		a := r.To.Addr
		if !a.IsValid() {
			a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		for _, t := range locals.Of(r) {
			if at, err := netip.ParseAddrPort(t); err == nil {
				if err := s.local("tcp", at, ""); err != nil {
					return []netip.Addr{a}, err
				}
			}
		}
		return []netip.Addr{a}, nil
	case s.targets == nil:
		return nil, nil
	default:
		return s.targets(r.To.Name)
	}
}

// local asks the list of this host.
func (s *Service) local(network string, target netip.AddrPort, path string) error {
	if s.locals == nil {
		return locals.ErrNotListed
	}
	return s.locals.Allow(network, target, path)
}

// LocalTargets are what resources may name on this host.
func (s *Service) LocalTargets() []string {
	if s.locals == nil {
		return nil
	}
	return s.locals.Targets()
}

// AllowLocalTargets lets resources name targets on this host from now on. It is for callers on
// this host alone.
func (s *Service) AllowLocalTargets(targets []string) error {
	if s.locals == nil {
		return Refuse("local_target_refused", "no list of them is kept here")
	}
	if err := s.locals.Add(targets); err != nil {
		return Refuse("local_target_refused", err)
	}
	return nil
}

// localFaults are the resources of a new text that name what is on this host and is not listed.
func (s *Service) localFaults(text string) language.ErrorList {
	p, err := language.Parse([]byte(text))
	if err != nil || acceptedBefore(s.View(), text) {
		return nil
	}
	f := p.Faults()
	for _, name := range p.Resources() {
		r := p.Resource(name)
		if _, err := s.target(r); err != nil && (r.To.Path != "" || r.To.Loopback()) {
			f.Errorf(r.To.At, language.CodeLocalTarget, "the resource %q names this host: %s", name, err)
		}
	}
	return f.Sorted()
}

// ResourceAnswer is what came of calling a resource's target.
type ResourceAnswer struct {
	Resource string
	Target   string
	OK       bool
	Text     string
}

// Bounds of CheckResource.
const (
	maxCalls    = 16 // of a resource
	maxAtOnce   = 16 // resources
	callTimeout = 2 * time.Second
	bannerWait  = 300 * time.Millisecond
	maxBanner   = 80
)

// CheckResource calls the targets of a resource, or of all, from this gateway, and tells what
// answered.
func (s *Service) CheckResource(ctx context.Context, name string) ([]ResourceAnswer, error) {
	list, err := s.Resources(name)
	if err != nil {
		return nil, err
	}
	answers := make([][]ResourceAnswer, len(list))
	atOnce := make(chan struct{}, maxAtOnce)
	var wg sync.WaitGroup
	for i, x := range list {
		wg.Go(func() {
			atOnce <- struct{}{}
			defer func() { <-atOnce }()
			answers[i] = s.checkResource(ctx, x.Resource)
		})
	}
	wg.Wait()
	return slices.Concat(answers...), nil
}

func (s *Service) checkResource(ctx context.Context, r *language.Resource) []ResourceAnswer {
	if r.To.Path != "" {
		return []ResourceAnswer{s.call(ctx, r, "unix", r.To.Path, netip.AddrPort{})}
	}
	addrs, err := s.target(r)
	if len(addrs) == 0 {
		if err == nil {
			err = relay.ErrUnknown
		}
		return []ResourceAnswer{{r.Name, r.To.Host(), false, err.Error()}}
	}
	var wg sync.WaitGroup
	calls := 0
	answers := make([]ResourceAnswer, maxCalls)
	for _, span := range r.Ports {
		for p := int(span.First); p <= int(span.Last) && calls < maxCalls; p++ {
			port := uint16(p)
			if r.ToPort != 0 {
				port = r.ToPort
			}
			for _, a := range addrs[:min(len(addrs), maxCalls-calls)] {
				at, i := netip.AddrPortFrom(a, port), calls
				calls++
				if span.Proto == language.ProtoUDP {
					answers[i] = ResourceAnswer{r.Name, at.String() + " (UDP)", true, "not asked: by UDP nothing answers by itself"}
					continue
				}
				wg.Go(func() { answers[i] = s.call(ctx, r, "tcp", at.String(), at) })
			}
		}
	}
	wg.Wait()
	return answers[:calls]
}

// call calls one target.
func (s *Service) call(ctx context.Context, r *language.Resource, network, target string, at netip.AddrPort) ResourceAnswer {
	no := func(err error) ResourceAnswer { return ResourceAnswer{r.Name, target, false, err.Error()} }
	var d net.Dialer
	if network == "unix" || at.Addr().IsLoopback() {
		if err := s.local(network, at, r.To.Path); err != nil {
			return no(err)
		}
	}
	if at.Addr().IsLoopback() && !r.FromGateway {
		if set, ok := s.View().Settings(); ok {
			if from := relay.Stand(set.GatewayAddrs()[0]); from.IsValid() {
				d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := d.DialContext(ctx, network, target)
	if err != nil {
		return no(reason(err))
	}
	defer c.Close()
	if r.ProxyV2 {
		return ResourceAnswer{r.Name, target, true, "accepts connections"}
	}
	if r.To.HTTP {
		return ResourceAnswer{r.Name, target, true, httpAnswer(c, r.To.Host())}
	}
	c.SetReadDeadline(time.Now().Add(bannerWait))
	b := make([]byte, maxBanner)
	n, _ := c.Read(b)
	if said := firstLine(b[:n]); said != "" {
		return ResourceAnswer{r.Name, target, true, "answers " + strconv.Quote(said)}
	}
	return ResourceAnswer{r.Name, target, true, "accepts connections"}
}

// httpAnswer asks for the start page and tells the status.
func httpAnswer(c net.Conn, host string) string {
	c.SetDeadline(time.Now().Add(callTimeout))
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nUser-Agent: vpnd\r\n\r\n", host)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "accepts connections, and does not speak HTTP: " + err.Error()
	}
	res.Body.Close()
	return "answers HTTP " + strconv.Itoa(res.StatusCode) + " " + http.StatusText(res.StatusCode)
}

// firstLine is what of a greeting can be shown on a terminal.
func firstLine(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if c < 0x20 || c > 0x7e {
			return -1
		}
		return c
	}, s))
}

// reason is why a call failed, without what was called: that stands beside it.
func reason(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("no answer within %s", callTimeout)
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}
