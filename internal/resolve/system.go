package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// hostsTTL is for how long an entry of /etc/hosts is believed, which says nothing about that.
const hostsTTL = time.Minute

// System asks as this host's other programs do: /etc/hosts first, then the servers of
// /etc/resolv.conf with its search list. Go's own resolver does not tell for how long an
// answer holds.
func System(ctx context.Context, name string) (Answer, error) {
	if a, ok := hosts(ctx, name); ok {
		return a, nil
	}
	c, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return Answer{}, fmt.Errorf("which servers to ask: %w", err)
	}
	if len(c.Servers) == 0 {
		return Answer{}, errors.New("/etc/resolv.conf names no server")
	}
	return Ask(ctx, c, name)
}

// hosts looks into /etc/hosts alone: Go's resolver does so before it asks anybody, and here it
// cannot ask.
func hosts(ctx context.Context, name string) (Answer, bool) {
	alone := net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("nobody is asked")
	}}
	addrs, err := alone.LookupNetIP(ctx, "ip", name)
	return Answer{addrs, hostsTTL}, err == nil && len(addrs) > 0
}

// Ask asks the servers of a configuration for a name's addresses of both families.
func Ask(ctx context.Context, c *dns.ClientConfig, name string) (Answer, error) {
	var last error
	for _, full := range c.NameList(name) {
		a, found, err := both(ctx, c, full)
		if err != nil {
			last = err
			continue
		}
		if found {
			return a, nil
		}
	}
	if last == nil {
		last = errors.New("there is no such name")
	}
	return Answer{}, last
}

// both asks for addresses of both families; found is false where there is no such name.
func both(ctx context.Context, c *dns.ClientConfig, name string) (a Answer, found bool, err error) {
	a.TTL = Longest
	for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA} {
		m, err := exchange(ctx, c, name, typ)
		if err != nil {
			return a, false, err
		}
		if m.Rcode == dns.RcodeNameError {
			return a, false, nil
		}
		for _, rr := range m.Answer {
			a.TTL = min(a.TTL, time.Duration(rr.Header().Ttl)*time.Second)
			var ip net.IP
			switch rr := rr.(type) {
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			}
			if x, ok := netip.AddrFromSlice(ip); ok {
				a.Addrs = append(a.Addrs, x.Unmap())
			}
		}
	}
	return a, len(a.Addrs) > 0, nil
}

// exchange asks one server after the other until one knows; an answer that was cut is asked for
// again by TCP.
func exchange(ctx context.Context, c *dns.ClientConfig, name string, typ uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), typ)
	q.SetEdns0(1232, false)
	var errs []error
	for _, server := range c.Servers {
		at := net.JoinHostPort(server, c.Port)
		client := dns.Client{Timeout: time.Duration(max(c.Timeout, 1)) * time.Second}
		m, _, err := client.ExchangeContext(ctx, q, at)
		if err == nil && m.Truncated {
			client.Net = "tcp"
			m, _, err = client.ExchangeContext(ctx, q, at)
		}
		if err == nil && m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
			err = fmt.Errorf("it answers %s", dns.RcodeToString[m.Rcode])
		}
		if err == nil {
			return m, nil
		}
		errs = append(errs, fmt.Errorf("the name server %s: %w", at, err))
	}
	return nil, errors.Join(errs...)
}
