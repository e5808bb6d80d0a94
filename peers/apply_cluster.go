package peers

import (
	"fmt"
	"slices"
	"strings"
)

func (c Init) apply(t *tx) (Result, error) {
	if t.m.Settings != nil {
		return Result{}, refuse(ErrExists, "cluster %s is made already", t.m.Settings.Cluster)
	}
	s := c.Settings
	if err := checkSettings(&s); err != nil {
		return Result{}, err
	}
	if err := checkKey(s.PublicKey); err != nil {
		return Result{}, err
	}
	if err := checkText("the policy", c.Policy, maxPolicy); err != nil {
		return Result{}, err
	}
	t.m.Settings = &s
	t.m.settingsAt = t.index
	t.m.NextHost = firstHost
	p := t.addPolicy(c.Policy, "")
	t.audit("cluster.init", s.Cluster.String(), "network "+prefixes(s.Network))
	return Result{Policy: p}, nil
}

func (c Configure) apply(t *tx) (Result, error) {
	s := *t.m.Settings
	var changes []string
	if c.Endpoint != nil && *c.Endpoint != s.Endpoint {
		if err := CheckEndpoint(*c.Endpoint); err != nil {
			return Result{}, err
		}
		s.Endpoint = *c.Endpoint
		changes = append(changes, "endpoint "+s.Endpoint)
	}
	if c.URL != nil && *c.URL != s.URL {
		if err := CheckURL(*c.URL); err != nil {
			return Result{}, err
		}
		s.URL = *c.URL
		changes = append(changes, "url "+s.URL)
	}
	if c.Routes != nil && !slices.Equal(*c.Routes, s.Routes) {
		if err := checkRoutes(*c.Routes, s.Network); err != nil {
			return Result{}, err
		}
		s.Routes = *c.Routes
		changes = append(changes, "routes "+orNone(prefixes(s.Routes)))
	}
	if c.DNS != nil && !slices.Equal(*c.DNS, s.DNS) {
		if err := checkDNS(*c.DNS); err != nil {
			return Result{}, err
		}
		s.DNS = *c.DNS
		var list []string
		for _, a := range s.DNS {
			list = append(list, a.String())
		}
		changes = append(changes, "dns "+orNone(strings.Join(list, ",")))
	}
	if c.Session != nil && *c.Session != s.Session {
		if err := checkSession(*c.Session); err != nil {
			return Result{}, err
		}
		s.Session = *c.Session
		changes = append(changes, "session "+s.Session.String())
	}
	if len(changes) == 0 {
		return Result{}, nil
	}
	t.m.Settings = &s
	t.m.settingsAt = t.index
	t.audit("settings.set", "", strings.Join(changes, "; "))
	return Result{}, nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (c Note) apply(t *tx) (Result, error) {
	for _, f := range []struct {
		what, text string
		most       int
	}{{"the note's action", c.Action, maxActor}, {"the note's target", c.Target, maxNote}, {"the note's detail", c.Detail, maxNote}} {
		if err := checkLine(f.what, f.text, f.most); err != nil {
			return Result{}, err
		}
	}
	if c.Action == "" {
		return Result{}, refuse(ErrInvalid, "a note needs an action")
	}
	t.audit(c.Action, c.Target, c.Detail)
	return Result{}, nil
}

func (TimeReset) apply(t *tx) (Result, error) {
	n := 0
	for s := range scan[Session](t, tableSessions, byID, nil) {
		t.endSession(s)
		n++
	}
	if p := t.m.Pending; p != nil {
		// A deadline on a clock that was wrong means nothing: it has come.
		t.m.Pending = &Pending{p.Version, p.Back, t.m.Time.time(), p.By}
	}
	t.audit("time.reset", "", fmt.Sprintf("%s ended", sessions(n)))
	return Result{Count: n}, nil
}

// audit notes what the command does; once for each command.
func (t *tx) audit(action, target, detail string) {
	t.put(tableAudit, &Entry{t.index, t.m.Time.time(), t.actor, action, target, detail})
	t.m.audits++
	if t.m.audits > maxAudit {
		if old := first[Entry](t, tableAudit, byID); old != nil {
			t.delete(tableAudit, old)
			t.m.audits--
		}
	}
}
