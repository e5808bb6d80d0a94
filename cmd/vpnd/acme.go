package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"vpnd/internal/acme"
	"vpnd/portal"
)

// completeACME checks what has to do with --acme. It needs the default of --portal not to be
// the one of a portal with a certificate of its own.
func (f *Flags) completeACME() error {
	if f.ACME == "" {
		if f.ACMEServer != "" || f.ACMECA != "" {
			return fmt.Errorf("--acme-directory and --acme-ca go with --acme EMAIL: give it, too")
		}
		return nil
	}
	if a, err := mail.ParseAddress(f.ACME); err != nil || a.Address != f.ACME || a.Name != "" {
		return fmt.Errorf("--acme %q: want the e-mail address that the authority's warnings go to, as ops@example.com", f.ACME)
	}
	if f.Cert != "" {
		return fmt.Errorf("--acme gets a certificate and --cert gives one: leave one of them out")
	}
	if f.ACMEServer == "" {
		f.ACMEServer = acme.LetsEncrypt
	}
	if u, err := url.Parse(f.ACMEServer); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return fmt.Errorf("--acme-directory %q: want the https:// URL of an authority's directory", f.ACMEServer)
	}
	if _, given := f.from["portal"]; !given {
		f.Portal = ":443"
	}
	return nil
}

// acmeRoots reads --acme-ca; nil stands for the host's.
func (f *Flags) acmeRoots() (*x509.CertPool, error) {
	if f.ACMECA == "" {
		return nil, nil
	}
	b, err := os.ReadFile(f.ACMECA)
	if err != nil {
		return nil, fmt.Errorf("read --acme-ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("--acme-ca %s holds no certificate in PEM", f.ACMECA)
	}
	return pool, nil
}

// reserveHTTP takes port 80, on the portal's address, for HTTP-01 and to lead people to HTTPS.
// Another program that has it is no fault: TLS-ALPN does without.
func (d *Daemon) reserveHTTP() {
	if d.flags.ACME == "" {
		return
	}
	host, _, err := net.SplitHostPort(d.flags.Portal)
	if err != nil {
		host = ""
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "80"))
	if err != nil {
		d.log.Warn("port 80 cannot be had: certificates are ordered by the portal's own port alone, and http:// does not lead to it", "what", "TCP port 80", "why", err)
		return
	}
	d.plain = l
}

// openACME makes what orders certificates, and lets the portal serve them.
func (d *Daemon) openACME() error {
	if d.flags.ACME == "" {
		return nil
	}
	roots, err := d.flags.acmeRoots()
	if err != nil {
		return err
	}
	d.acme = acme.New(acme.Config{
		Email: d.flags.ACME, Directory: d.flags.ACMEServer, Roots: roots,
		Port: d.public.Addr().(*net.TCPAddr).Port, HTTP: d.plain != nil,
		Host: d.portalHost, Vault: d.service.Vault(), Log: d.part("acme"), Now: time.Now,
	})
	d.service.UseIssued(d.acme.Certificate)
	return nil
}

// portalHost is the host of the portal's URL, empty while there is none.
func (d *Daemon) portalHost() string {
	u, err := url.Parse(d.service.URL())
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// serveACME orders and renews, and answers on port 80.
func (d *Daemon) serveACME(ctx context.Context, g *errgroup.Group) {
	if d.acme == nil {
		return
	}
	g.Go(func() error { d.acme.Run(ctx); return nil })
	if d.plain != nil {
		d.serveHTTP(ctx, g, d.limitPublic(d.plain), d.acme.Challenges(portal.ToHTTPS(d.service.URL)))
	}
}

// attention is what is wrong with what vpnd depends on, in words.
func (d *Daemon) attention() []string {
	var list []string
	if d.rec != nil {
		list = d.rec.Troubles()
	}
	return append(list, d.authority()...)
}

// authority is what is wrong with the portal's certificate, in words.
func (d *Daemon) authority() []string {
	if d.acme == nil {
		return nil
	}
	r := d.acme.Report()
	if r.Problem == "" {
		return nil
	}
	if r.End.IsZero() {
		return []string{"the portal serves its own authority's certificate, because there is none for " + r.Host + " yet: " + r.Problem}
	}
	return []string{fmt.Sprintf("the portal's certificate for %s ends %s and was not renewed: %s", r.Host, r.End.UTC().Format("2006-01-02 15:04 MST"), r.Problem)}
}
