package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// hostsTTL is how long a line of /etc/hosts is good for.
	hostsTTL = time.Minute
	// noNameTTL is how long it is good that a name does not exist.
	noNameTTL = 30 * time.Second
	// payload is the largest answer by UDP that no path breaks (dnsflagday.net).
	payload = 1232
	// maxChain is the most CNAMEs that are followed.
	maxChain = 16
)

// System asks as this host is set up to: /etc/hosts, then the servers and the search list of
// /etc/resolv.conf, which is read anew each time. Go's own resolver tells no time to live.
type System struct {
	conf  string // resolv.conf(5)
	port  string // of the servers; "" by conf
	hosts *net.Resolver
}

// NewSystem makes a System for this host.
func NewSystem() *System {
	return &System{conf: "/etc/resolv.conf", hosts: &net.Resolver{
		PreferGo: true,
		// So it has its file alone.
		Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("no server is asked here")
		},
	}}
}

// Lookup is for Options.
func (s *System) Lookup(ctx context.Context, name string) (Answer, error) {
	if addrs, err := s.hosts.LookupNetIP(ctx, "ip", name); err == nil && len(addrs) > 0 {
		for i := range addrs {
			addrs[i] = addrs[i].Unmap()
		}
		return Answer{Addrs: addrs, TTL: hostsTTL}, nil
	}
	conf, err := s.config()
	if err != nil {
		return Answer{}, err
	}
	for _, full := range conf.NameList(name) {
		a, err := both(ctx, conf, full)
		if !errors.Is(err, ErrNoName) {
			return a, err
		}
	}
	return Answer{TTL: noNameTTL}, ErrNoName
}

func (s *System) config() (*dns.ClientConfig, error) {
	conf, err := dns.ClientConfigFromFile(s.conf)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading which DNS servers there are: %w", err)
	}
	if err != nil || len(conf.Servers) == 0 { // resolv.conf(5): then it is this host
		conf = &dns.ClientConfig{Servers: []string{"127.0.0.1"}, Port: "53", Ndots: 1, Timeout: 5, Attempts: 2}
	}
	if s.port != "" {
		conf.Port = s.port
	}
	return conf, nil
}

// both asks for a full name's addresses of both families. With those of one it does without the
// other's; that there are none is known when both say so.
func both(ctx context.Context, conf *dns.ClientConfig, name string) (Answer, error) {
	type result struct {
		Answer
		err error
	}
	six := make(chan result, 1)
	go func() {
		a, err := one(ctx, conf, name, dns.TypeAAAA)
		six <- result{a, err}
	}()
	a, err := one(ctx, conf, name, dns.TypeA)
	b := <-six
	switch {
	case err == nil && b.err == nil:
		return Answer{Addrs: append(a.Addrs, b.Addrs...), TTL: min(a.TTL, b.TTL)}, nil
	case err == nil:
		return a, nil
	case b.err == nil:
		return b.Answer, nil
	case errors.Is(err, ErrNoName) && errors.Is(b.err, ErrNoName):
		return Answer{}, ErrNoName
	case errors.Is(err, ErrNoName):
		return Answer{}, b.err
	}
	return Answer{}, err
}

// one asks for the addresses of one family: each server in turn, until one answers.
func one(ctx context.Context, conf *dns.ClientConfig, name string, kind uint16) (Answer, error) {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), kind)
	q.SetEdns0(payload, false)
	var last error
	for range max(conf.Attempts, 1) {
		for _, server := range conf.Servers {
			r, err := exchange(ctx, q, net.JoinHostPort(server, conf.Port), time.Duration(conf.Timeout)*time.Second)
			if err != nil {
				last = fmt.Errorf("the DNS server %s does not answer: %w", server, reason(err))
			} else if r.Rcode == dns.RcodeSuccess || r.Rcode == dns.RcodeNameError {
				return collect(q.Question[0].Name, kind, r)
			} else {
				last = fmt.Errorf("the DNS server %s answers %s", server, dns.RcodeToString[r.Rcode])
			}
			if ctx.Err() != nil {
				return Answer{}, last
			}
		}
	}
	return Answer{}, last
}

func exchange(ctx context.Context, q *dns.Msg, server string, timeout time.Duration) (*dns.Msg, error) {
	q = q.Copy()
	q.Id = dns.Id()
	ask := func(network string) (*dns.Msg, error) {
		c := dns.Client{Net: network, Timeout: timeout, UDPSize: payload}
		r, _, err := c.ExchangeContext(ctx, q, server)
		if err != nil {
			return nil, err
		}
		if len(r.Question) != 1 || !strings.EqualFold(r.Question[0].Name, q.Question[0].Name) || r.Question[0].Qtype != q.Question[0].Qtype {
			return nil, errors.New("its answer is to another question")
		}
		return r, nil
	}
	r, err := ask("udp")
	if err == nil && r.Truncated {
		return ask("tcp")
	}
	return r, err
}

// reason is an error without the port that this question happened to come from: the same fault
// twice is no change.
func reason(err error) error {
	var op *net.OpError
	if !errors.As(err, &op) {
		return err
	}
	if op.Timeout() {
		return os.ErrDeadlineExceeded
	}
	return op.Err
}

// collect takes a name's addresses out of an answer, along its CNAMEs.
func collect(name string, kind uint16, r *dns.Msg) (Answer, error) {
	ttl := uint32(Most / time.Second)
	for range maxChain {
		var addrs []netip.Addr
		next := ""
		for _, rr := range r.Answer {
			h := rr.Header()
			if !strings.EqualFold(h.Name, name) || h.Class != dns.ClassINET {
				continue
			}
			var ip net.IP
			switch rr := rr.(type) {
			case *dns.CNAME:
				next = rr.Target
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			}
			if a, ok := netip.AddrFromSlice(ip); ok && h.Rrtype == kind {
				addrs = append(addrs, a)
			} else if next == "" {
				continue
			}
			ttl = min(ttl, h.Ttl)
		}
		if len(addrs) > 0 {
			return Answer{Addrs: addrs, TTL: time.Duration(ttl) * time.Second}, nil
		}
		if next == "" {
			break
		}
		name = next
	}
	return Answer{}, ErrNoName
}
