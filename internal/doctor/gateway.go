package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
	"vpnd/peers"
)

// Gateway is what a running vpnd knows of itself.
type Gateway struct {
	Now       time.Time
	View      *peers.View
	Settings  peers.Settings
	Given     bool // a flag or a file gives the endpoint
	Leader    bool
	Applied   uint64
	Plane     dataplane.Stats
	PlaneErr  error
	Rules     *rules.Ruleset // nil before the first
	Ignored   language.ErrorList
	Spellings []string

	Interface string
	WireGuard netip.AddrPort
	Data      string
	Files     []error // what is wrong with owners and modes
	Cert      *x509.Certificate
	CertErr   error
	OwnCA     bool     // renews by itself
	Authority []string // what an authority that is to issue the certificate has against it

	SelfTest func(context.Context) error // connects a client of its own; nil: there is none
}

// slow bounds what waits for others: name servers, hosts of the policy.
const slow = 3 * time.Second

// Look looks at everything that vpnd can see.
func (g *Gateway) Look(ctx context.Context) []*Finding {
	patient := ctx
	ctx, stop := context.WithTimeout(ctx, slow)
	defer stop()
	looks := []func(context.Context) []*Finding{
		g.state, g.plane, g.firewall, g.endpoint, g.clock, g.ways, g.port, g.certificate,
		func(context.Context) []*Finding { return Disk(g.Data, syncFile) },
		g.files, g.grants, g.Outside,
		func(context.Context) []*Finding { return g.selfTest(patient) },
	}
	found := make([][]*Finding, len(looks))
	var wg sync.WaitGroup
	for i, look := range looks {
		wg.Go(func() { found[i] = look(ctx) })
	}
	wg.Wait()
	var out []*Finding
	for _, f := range found {
		out = append(out, f...)
	}
	Sort(out)
	return out
}

func (g *Gateway) state(context.Context) (out []*Finding) {
	if !g.Leader {
		out = append(out, find("leader_none"))
	}
	if index := g.View.Index(); g.Applied < index {
		out = append(out, find("plane_behind", "applied", g.Applied, "index", index))
	}
	for _, d := range g.Spellings {
		out = append(out, find("key_spelling", "device", d))
	}
	for _, e := range g.Ignored {
		out = append(out, find("policy_ignored", "line", e.Line, "why", e.Message))
	}
	return out
}

func (g *Gateway) plane(context.Context) []*Finding {
	why, _, _ := strings.Cut(g.Plane.Detail, "; ") // why this one; status shows the rest
	switch {
	case g.PlaneErr != nil:
		return []*Finding{find("plane_down", "why", g.PlaneErr)}
	case g.Plane.Plane == "netstack":
		return []*Finding{find("plane_netstack", "why", why, "detail", g.Plane.Detail)}
	case strings.Contains(g.Plane.Detail, "wireguard-go"):
		return []*Finding{find("plane_go", "why", why, "detail", g.Plane.Detail)}
	}
	return []*Finding{find("plane_kernel", "why", why, "detail", g.Plane.Detail)}
}

// firewall passes on what the linux plane complains about: it follows the packets through
// the rules of others.
func (g *Gateway) firewall(context.Context) (out []*Finding) {
	if g.PlaneErr != nil || g.Plane.Plane != "linux" {
		return []*Finding{find("firewall_unread", "what", "whether this host's firewall lets clients through cannot be seen without CAP_NET_ADMIN")}
	}
	return Complaints(g.Plane.Filters)
}

// Complaints are findings about other people's rules.
func Complaints(list []dataplane.Complaint) (out []*Finding) {
	for _, c := range list {
		if c.Table != "" {
			out = append(out, find("firewall_drops", "table", c.Table, "chain", c.Chain, "what", c.What, "line", c.Line))
		} else {
			out = append(out, find("firewall_unread", "what", c.What))
		}
	}
	if out == nil {
		out = append(out, find("firewall_open"))
	}
	return out
}

// Where a self-test stopped.
var (
	ErrNoHandshake = errors.New("WireGuard does not answer")
	ErrNoPage      = errors.New("the sign-in page does not answer")
)

// selfTest says what a client on this host has got. Nothing is learnt of the way from outside.
func (g *Gateway) selfTest(ctx context.Context) []*Finding {
	if g.SelfTest == nil {
		return nil
	}
	switch err := g.SelfTest(ctx); {
	case err == nil:
		return []*Finding{find("self_test_ok")}
	case errors.Is(err, ErrNoHandshake):
		return []*Finding{find("self_test_handshake", "port", g.WireGuard.Port())}
	case errors.Is(err, ErrNoPage):
		return []*Finding{find("self_test_page", "why", strings.TrimPrefix(err.Error(), ErrNoPage.Error()+": "))}
	default:
		return []*Finding{find("self_test_unknown", "why", err)}
	}
}

func (g *Gateway) clock(context.Context) []*Finding {
	if behind := g.View.Time().Sub(g.Now); behind > clockSlack {
		return []*Finding{find("clock_behind", "behind", behind.Round(time.Second))}
	}
	return Clock(Adjtimex)
}

// clockSlack is what a clock may lie behind State's time before codes are refused.
const clockSlack = 5 * time.Second

const (
	certMust   = 7 * 24 * time.Hour  // an administrator has a week to act
	certAdvice = 20 * 24 * time.Hour // ACME clients renew 30 days before the end
)

func (g *Gateway) certificate(context.Context) []*Finding {
	if len(g.Authority) > 0 {
		return []*Finding{find("certificate_refused", "why", strings.Join(g.Authority, "; "))}
	}
	if g.CertErr != nil || g.Cert == nil {
		return []*Finding{find("certificate_none", "why", fmt.Sprint(g.CertErr))}
	}
	host := hostOfURL(g.Settings.URL)
	end := g.Cert.NotAfter.UTC().Format("2006-01-02 15:04 UTC")
	left := g.Cert.NotAfter.Sub(g.Now)
	if host != "" {
		if err := g.Cert.VerifyHostname(host); err != nil {
			return []*Finding{find("certificate_other", "name", host, "why", err)}
		}
	}
	switch {
	case left <= 0:
		return []*Finding{find("certificate_ended", "end", end)}
	case left < certMust && !g.OwnCA:
		return []*Finding{find("certificate_ends", "end", end)}
	case left < certAdvice && !g.OwnCA:
		return []*Finding{find("certificate_soon", "end", end)}
	}
	return []*Finding{find("certificate_ok", "name", host, "end", end)}
}

// files says what internal/owner refuses, each with the command that mends it.
func (g *Gateway) files(context.Context) (out []*Finding) {
	for _, err := range g.Files {
		out = append(out, File(err))
	}
	if out == nil {
		out = append(out, find("files_ok"))
	}
	return out
}

// File makes a finding of a refusal of internal/owner, whose remedy stands at its end.
func File(err error) *Finding {
	text := oneLine(err.Error())
	if i := strings.LastIndex(text, ": run "); i > 0 {
		return find("files_wrong", "why", text[:i], "line", text[i+len(": run "):])
	}
	return find("files_other", "why", text)
}
