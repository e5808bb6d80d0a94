package portal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"vpnd/internal/control"
	"vpnd/internal/logs"
)

const publicURL = "https://vpn.example.org:8443"

// logLines collects what a handler logs.
type logLines struct {
	t     *testing.T
	lines []string
}

func (l *logLines) Write(b []byte) (int, error) {
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

// log writes what is logged at level info to l.
func (l *logLines) log() *slog.Logger { return logs.New(l, logs.Options{Level: slog.LevelInfo}) }

func publicUnderTest(t *testing.T, f *fakeService) (http.Handler, *logLines) {
	l := &logLines{t: t}
	return Public(Config{Service: f, URL: func() string { return publicURL },
		Tunnel: []netip.Addr{tunnel4, tunnel6}, AppPort: 8080, Log: l.log()}), l
}

// ask sends a request as a browser on our own page would; change makes it another.
func ask(h http.Handler, method, target, body string, change func(*http.Request)) *http.Response {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.RemoteAddr = "203.0.113.9:4711"
	if method != http.MethodGet {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Origin", r.URL.Scheme+"://"+r.Host)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func read(t *testing.T, r *http.Response) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		t.Fatalf("status %d: the answer is no JSON object: %v", r.StatusCode, err)
	}
	return m
}

func errorCode(t *testing.T, r *http.Response) string {
	t.Helper()
	e, _ := read(t, r)["error"].(map[string]any)
	code, _ := e["code"].(string)
	if message, _ := e["message"].(string); message == "" {
		t.Errorf("error %q has no message", code)
	}
	return code
}

func keysOf(m map[string]any) string { return strings.Join(slices.Sorted(maps.Keys(m)), " ") }

const aKey = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="

func finishBody(code, device string) string {
	return fmt.Sprintf(`{"token":%q,"code":%q,"device":%q,"public_key":%q}`, fakeToken, code, device, aKey)
}

func TestPublicPages(t *testing.T) {
	h, _ := publicUnderTest(t, newFake())
	for _, tt := range []struct {
		method, path string
		status       int
		has          string
	}{
		{"GET", "/", 200, "WireGuard gateway"},
		{"HEAD", "/", 200, ""},
		{"GET", "/enroll", 200, "enroll.js"},
		{"GET", "/enroll/", 404, "no page"},
		{"GET", "/enroll/" + fakeToken, 404, "no page"},
		{"GET", "/nothing", 404, "no page"},
		{"GET", "/api/v1/session", 404, "not_found"}, // the tunnel's alone
		{"GET", "/api/v1/enroll/begin", 405, "method"},
		{"PUT", "/api/v1/enroll/finish", 405, "method"},
		{"POST", "/enroll", 405, ""},
		{"GET", assets.prefix + "style.css", 200, "--paper"},
		{"GET", assets.prefix + "vendor/README.md", 404, ""},
		{"GET", assets.prefix + "..%2fportal.go", 404, ""},
		{"GET", "/assets/other/style.css", 404, ""},
	} {
		t.Run(tt.method+tt.path, func(t *testing.T) {
			r := ask(h, tt.method, publicURL+tt.path, "", nil)
			b := bodyOf(t, r)
			if r.StatusCode != tt.status || !strings.Contains(b, tt.has) {
				t.Errorf("status %d, want %d with %q in:\n%s", r.StatusCode, tt.status, tt.has, b)
			}
			if strings.Contains(b, "<script>") || strings.Contains(b, "style=") || strings.Contains(b, "onclick=") {
				t.Error("inline script or style")
			}
			checkHeaders(t, r)
		})
	}
}

func bodyOf(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func checkHeaders(t *testing.T, r *http.Response) {
	t.Helper()
	for k, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
		"Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := r.Header.Get(k); got != want {
			t.Errorf("%s: %q, want %q", k, got, want)
		}
	}
	policy := r.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "connect-src 'self'",
		"form-action 'none'", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("CSP lacks %s: %s", want, policy)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
		t.Errorf("CSP is open: %s", policy)
	}
	want := "no-store"
	if r.StatusCode == 200 && strings.HasPrefix(r.Header.Get("Content-Type"), "text/") && !strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") {
		want = "public, max-age=31536000, immutable"
	}
	if got := r.Header.Get("Cache-Control"); got != want {
		t.Errorf("Cache-Control: %q, want %q", got, want)
	}
	for k := range r.Header {
		if strings.HasPrefix(k, "Access-Control-") {
			t.Errorf("%s: the API is for nobody else's pages", k)
		}
	}
}

// TestForeignHostsAndOrigins sends what other sites' pages, and rebound names, would.
func TestForeignHostsAndOrigins(t *testing.T) {
	f := newFake()
	h, _ := publicUnderTest(t, f)
	header := func(k, v string) func(*http.Request) { return func(r *http.Request) { r.Header.Set(k, v) } }
	host := func(v string) func(*http.Request) { return func(r *http.Request) { r.Host = v } }
	for _, tt := range []struct {
		name   string
		change func(*http.Request)
		status int
	}{
		{"own", nil, 200},
		{"own, other case", host("VPN.Example.org:8443"), 200},
		{"no browser", func(r *http.Request) { r.Header.Del("Origin"); r.Header.Del("Sec-Fetch-Site") }, 200},
		{"foreign host", host("evil.example"), 421},
		{"address as host", host("203.0.113.1:8443"), 421},
		{"no port", host("vpn.example.org"), 421},
		{"other port", host("vpn.example.org:443"), 421},
		{"suffix", host("vpn.example.org:8443.evil.example"), 421},
		{"user", host("vpn.example.org:8443@evil.example"), 421},
		{"trailing dot", host("vpn.example.org.:8443"), 421},
		{"empty", host(""), 421},
		{"foreign origin", header("Origin", "https://evil.example"), 403},
		{"null origin", header("Origin", "null"), 403},
		{"http origin", header("Origin", "http://vpn.example.org:8443"), 403},
		{"origin of another port", header("Origin", "https://vpn.example.org"), 403},
		{"origin prefix", header("Origin", "https://vpn.example.org:8443.evil.example"), 403},
		{"origin with path", header("Origin", "https://vpn.example.org:8443/"), 403},
		{"two origins", func(r *http.Request) { r.Header.Add("Origin", "https://evil.example") }, 403},
		{"cross-site", header("Sec-Fetch-Site", "cross-site"), 403},
		{"same-site", header("Sec-Fetch-Site", "same-site"), 403},
		{"cross-site without origin", func(r *http.Request) { r.Header.Del("Origin"); r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := ask(h, "POST", publicURL+"/api/v1/enroll/begin", `{"token":"`+fakeToken+`"}`, tt.change)
			if r.StatusCode != tt.status {
				t.Errorf("%d %s, want %d", r.StatusCode, bodyOf(t, r), tt.status)
			}
			if r.StatusCode != 200 && len(r.Cookies()) != 0 {
				t.Error("a refused request got a cookie")
			}
		})
	}
	if r := ask(h, "GET", publicURL+"/enroll", "", host("evil.example")); r.StatusCode != 421 || !strings.Contains(bodyOf(t, r), publicURL) {
		t.Errorf("page under a foreign host: %d", r.StatusCode)
	}
}

// TestErrorsKeepSecrets: the client gets the message, the log the cause, neither a secret.
func TestErrorsKeepSecrets(t *testing.T) {
	f := newFake()
	h, l := publicUnderTest(t, f)
	for _, tt := range []struct {
		err    error
		status int
		code   string
	}{
		{errors.New("disk is on fire"), 500, "internal"},
		{fmt.Errorf("asking: %w", control.Refuse("owner_gone")), 404, "not_found"},
		{control.Refuse("invitation_ended", time.Now()), 410, "invitation_expired"},
		{&control.Error{Code: "unconfirmed", Err: errors.New("no leader")}, 503, "unavailable"},
		{&control.Error{Code: "of_a_newer_gateway"}, 500, "internal"},
	} {
		f.fail = tt.err
		r := ask(h, "POST", publicURL+"/api/v1/enroll/finish?x="+fakeToken, finishBody(fakeCode, "phone"), nil)
		b := bodyOf(t, r)
		if r.StatusCode != tt.status || !strings.Contains(b, `"`+tt.code+`"`) || strings.Contains(b, "fire") || strings.Contains(b, "leader") {
			t.Errorf("%v: %d %s", tt.err, r.StatusCode, b)
		}
	}
	all := strings.Join(l.lines, "\n")
	if !strings.Contains(all, "disk is on fire") || !strings.Contains(all, "no leader") {
		t.Errorf("the log lacks a cause: %s", all)
	}
	if strings.Contains(all, fakeToken) || strings.Contains(all, fakeCode) || strings.Contains(all, aKey) {
		t.Errorf("a secret is in the log: %s", all)
	}
}
