package portal

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"vpnd/acl/language"
	"vpnd/acl/rules"
	"vpnd/internal/control"
	"vpnd/internal/control/controltest"
	"vpnd/internal/dataplane"
	"vpnd/internal/store"
	"vpnd/peers"
)

// instant is a gateway that has carried everything out at once; the planes have tests of
// their own.
type instant struct {
	t     *testing.T
	state *peers.State
}

func (g instant) Wait(context.Context, uint64) error { return nil }
func (g instant) Applied() uint64                    { return g.state.View().Index() }
func (g instant) Stats(context.Context, ...dataplane.Key) (dataplane.Stats, error) {
	return dataplane.Stats{}, nil
}
func (g instant) Permits(context.Context, dataplane.Flow) (bool, error) { return false, nil }

func (g instant) Rules() *rules.Ruleset {
	v := g.state.View()
	p, err := language.Parse([]byte(v.Policy().Text))
	if err != nil {
		g.t.Fatal(err)
	}
	var subjects []rules.Subject
	for d := range v.Devices() {
		if s, ok := v.Subject(d); ok {
			subjects = append(subjects, s)
		}
	}
	set, _ := v.Settings()
	r, err := rules.Compile(p, rules.Options{Network: set.Network, Gateway: set.GatewayAddrs(), Session: set.Session}, subjects)
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

// real is the portal on the real control, state and store.
type real struct {
	*testing.T
	service        *control.Service
	outside        http.Handler
	inside         http.Handler
	gateway        netip.Addr
	ahead          atomic.Int64 // of the clock, in ns
	cookie         *http.Cookie
	url            string
	token, address string
}

func newReal(t *testing.T) *real {
	s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &real{T: t}
	sealer, err := control.NewSealer(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := control.Bootstrap(t.Context(), s, sealer, control.BootstrapConfig{Endpoint: "vpn.example.org:51820", Now: r.now}); err != nil {
		t.Fatal(err)
	}
	r.service = control.New(control.Config{Store: s, Gateway: instant{t, s.State()}, Sealer: sealer, Now: r.now, Version: "test", Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	_, invite, err := r.service.AddUser(t.Context(), "alice", 0)
	if err != nil {
		t.Fatal(err)
	}
	r.url, r.token, _ = strings.Cut(invite.Link, "/enroll#")
	set, _ := s.State().View().Settings()
	r.gateway = set.GatewayAddrs()[0]
	c := Config{Service: r.service, URL: r.service.URL, Tunnel: set.GatewayAddrs(), AppPort: 8080, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	r.outside, r.inside = Public(c), Tunnel(c)
	return r
}

func (r *real) now() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }

func (r *real) enroll(path string, body map[string]string) (int, map[string]any) {
	r.Helper()
	body["token"] = r.token
	b, err := json.Marshal(body)
	if err != nil {
		r.Fatal(err)
	}
	a := ask(r.outside, "POST", r.url+"/api/v1/enroll/"+path, string(b), func(q *http.Request) {
		if r.cookie != nil {
			q.AddCookie(r.cookie)
		}
	})
	if len(a.Cookies()) > 0 {
		r.cookie = a.Cookies()[0]
	}
	return a.StatusCode, r.answer(a)
}

func (r *real) answer(a *http.Response) map[string]any {
	r.Helper()
	if a.StatusCode == http.StatusNoContent {
		return nil
	}
	return read(r.T, a)
}

func (r *real) session(method, body string) (int, string, map[string]any) {
	r.Helper()
	a := askFrom(r.inside, r.address+":1", method, "http://"+r.gateway.String()+"/api/v1/session", body, nil)
	return a.StatusCode, a.Header.Get("Retry-After"), r.answer(a)
}

func codeOf(m map[string]any) any {
	e, _ := m["error"].(map[string]any)
	return e["code"]
}

// TestOnRealControl goes from the invitation to a lock through HTTP alone.
func TestOnRealControl(t *testing.T) {
	r := newReal(t)
	status, m := r.enroll("begin", map[string]string{})
	if status != 200 || keysOf(m) != "expires_at otpauth_url qr_svg secret user" {
		t.Fatalf("begin: %d %v", status, m)
	}
	secret := m["secret"].(string)
	code := func() string {
		c, err := totp.GenerateCode(secret, r.now())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	next := func() { r.ahead.Add(int64(60 * time.Second)) }
	finish := map[string]string{"code": "000000", "device": "phone", "public_key": aKey}
	if status, m := r.enroll("finish", finish); status != 401 || codeOf(m) != "code_invalid" {
		t.Fatalf("wrong code: %d %v", status, m)
	}
	finish["code"] = code()
	var first string
	for range 2 {
		status, m := r.enroll("finish", finish)
		if status != 201 || keysOf(m) != "addresses config device" || m["device"] != "alice/phone" {
			t.Fatalf("finish: %d %v", status, m)
		}
		if s := fmt.Sprint(m); first != "" && s != first {
			t.Errorf("the repeat differs: %s, was %s", s, first)
		} else {
			first = s
		}
		r.address = m["addresses"].([]any)[0].(string)
	}
	if status, m := r.enroll("begin", map[string]string{}); status != 410 || codeOf(m) != "invitation_used" {
		t.Errorf("begin after use: %d %v", status, m)
	}
	if status, m := r.enroll("status", map[string]string{"public_key": aKey}); status != 200 || m["state"] != "waiting" {
		t.Errorf("status: %d %v", status, m)
	}

	if status, _, m := r.session("GET", ""); status != 200 || m["state"] != "required" || m["user"] != "alice" || m["device"] != "phone" {
		t.Errorf("session: %d %v", status, m)
	}
	page := bodyOf(t, askFrom(r.inside, r.address+":1", "GET", "http://"+r.gateway.String()+"/", "", nil))
	if !strings.Contains(page, "<h2>A code opens</h2>") || !strings.Contains(page, "tcp:8080") {
		t.Errorf("the page does not say what a code opens:\n%s", page)
	}
	used := finish["code"]
	if status, retry, m := r.session("POST", `{"code":"`+used+`"}`); status != 401 || codeOf(m) != "code_used" || retry == "" {
		t.Errorf("enrolment's code again: %d %v, Retry-After %q", status, m, retry)
	}
	next()
	status, _, m = r.session("POST", `{"code":"`+code()+`"}`)
	if status != 200 || m["state"] != "active" {
		t.Fatalf("sign-in: %d %v", status, m)
	}
	if !slices.ContainsFunc(m["reaches"].([]any), func(x any) bool {
		p := x.(map[string]any)
		return p["address"] == r.gateway.String() && fmt.Sprint(p["ports"]) == "[tcp:8080]" && p["until"] != nil
	}) {
		t.Errorf("the app is not among what is reached: %v", m["reaches"])
	}
	page = bodyOf(t, askFrom(r.inside, r.address+":1", "GET", "http://"+r.gateway.String()+"/", "", nil))
	if !strings.Contains(page, `href="http://`+r.gateway.String()+`:8080/"`) {
		t.Errorf("the page does not lead to the app:\n%s", page)
	}
	if status, m := r.enroll("status", map[string]string{"public_key": aKey}); status != 200 || m["state"] != "active" {
		t.Errorf("status: %d %v", status, m)
	}
	if status, _, _ := r.session("DELETE", ""); status != 204 {
		t.Errorf("sign-out: %d", status)
	}
	if _, _, m := r.session("GET", ""); m["state"] != "required" {
		t.Errorf("after sign-out: %v", m)
	}

	next()
	for n := range 5 {
		if status, _, m := r.session("POST", `{"code":"000000"}`); status != 401 || codeOf(m) != "code_invalid" {
			t.Fatalf("wrong code %d: %d %v", n, status, m)
		}
	}
	for _, c := range []string{"000000", code()} {
		status, retry, m := r.session("POST", `{"code":"`+c+`"}`)
		if n, err := strconv.Atoi(retry); status != 429 || codeOf(m) != "locked" || err != nil || n < 890 || n > 900 {
			t.Errorf("locked: %d %v, Retry-After %q", status, m, retry)
		}
	}
}

// The page and the API say "active" up to the session's end and not at it.
func TestInstantOnRealControl(t *testing.T) {
	st := controltest.NewStore()
	sealer, err := control.NewSealer(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Second)
	clock := func() time.Time { return now }
	if _, err := control.Bootstrap(t.Context(), st, sealer, control.BootstrapConfig{Endpoint: "vpn.example.org:51820", Now: clock}); err != nil {
		t.Fatal(err)
	}
	r := &real{T: t, service: control.New(control.Config{Store: st, Gateway: instant{t, st.State()}, Sealer: sealer, Now: clock})}
	_, invite, err := r.service.AddUser(t.Context(), "alice", 0)
	if err != nil {
		t.Fatal(err)
	}
	r.url, r.token, _ = strings.Cut(invite.Link, "/enroll#")
	set, _ := st.State().View().Settings()
	r.gateway = set.GatewayAddrs()[0]
	c := Config{Service: r.service, URL: r.service.URL, Tunnel: set.GatewayAddrs(), AppPort: 8080, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	r.outside, r.inside = Public(c), Tunnel(c)
	_, m := r.enroll("begin", map[string]string{})
	secret := m["secret"].(string)
	code := func() string {
		c, err := totp.GenerateCode(secret, now)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	_, m = r.enroll("finish", map[string]string{"code": code(), "device": "phone", "public_key": aKey})
	r.address = m["addresses"].([]any)[0].(string)
	now = now.Add(time.Minute)
	if status, _, m := r.session("POST", `{"code":"`+code()+`"}`); status != 200 {
		t.Fatal(m)
	}
	end := now.Add(set.Session)
	for _, c := range []struct {
		at    time.Duration
		state string
	}{{-time.Nanosecond, "active"}, {0, "required"}, {time.Nanosecond, "required"}} {
		now = end.Add(c.at)
		if _, _, m := r.session("GET", ""); m["state"] != c.state {
			t.Errorf("at the end %+d ns: %v", c.at, m)
		}
		page := bodyOf(t, askFrom(r.inside, r.address+":1", "GET", "http://"+r.gateway.String()+"/", "", nil))
		if open := strings.Contains(page, `:8080/"`); open != (c.state == "active") {
			t.Errorf("at the end %+d ns the page leads to the app: %v", c.at, open)
		}
	}
}

// TestOtherBrowserOnRealControl: a second browser ends the first, and the first is told.
func TestOtherBrowserOnRealControl(t *testing.T) {
	r := newReal(t)
	_, one := r.enroll("begin", map[string]string{})
	first := r.cookie
	r.cookie = nil
	_, two := r.enroll("begin", map[string]string{})
	if one["secret"] == two["secret"] {
		t.Fatal("two browsers were shown one secret")
	}
	r.cookie = first
	c, err := totp.GenerateCode(one["secret"].(string), r.now())
	if err != nil {
		t.Fatal(err)
	}
	if status, m := r.enroll("finish", map[string]string{"code": c, "device": "phone", "public_key": aKey}); status != 409 || codeOf(m) != "other_browser" {
		t.Errorf("the first browser: %d %v", status, m)
	}
}
