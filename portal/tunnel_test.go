package portal

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"vpnd/acl/rules"
	"vpnd/internal/control"
)

func tunnelUnderTest(t *testing.T, f *fakeService) (http.Handler, *logLines) {
	l := &logLines{t: t}
	return Tunnel(Config{Service: f, URL: func() string { return publicURL },
		Tunnel: []netip.Addr{tunnel4, tunnel6}, AppPort: 8080, Log: l.log()}), l
}

func askFrom(h http.Handler, from, method, target, body string, change func(*http.Request)) *http.Response {
	return ask(h, method, target, body, func(r *http.Request) {
		r.RemoteAddr = from
		r.Header.Del("Sec-Fetch-Site") // browsers leave it out on plain HTTP
		if change != nil {
			change(r)
		}
	})
}

const fromPhone = "10.77.0.2:40000"

func TestSessionAPI(t *testing.T) {
	f := newFake()
	h, _ := tunnelUnderTest(t, f)
	const at = "http://10.77.0.1/api/v1/session"
	r := askFrom(h, fromPhone, "GET", at, "", nil)
	checkHeaders(t, r)
	m := read(t, r)
	if r.StatusCode != 200 || keysOf(m) != "device expires_at reaches state user" || m["state"] != "required" || m["expires_at"] != nil || len(m["reaches"].([]any)) != 0 {
		t.Errorf("before: %d %v", r.StatusCode, m)
	}
	for _, tt := range []struct {
		body   string
		status int
		code   string
		retry  string
	}{
		{`{"code":"000000"}`, 401, "code_invalid", ""},
		{`{"code":""}`, 401, "code_invalid", ""},
		{`{"code":"999999"}`, 429, "locked", "870"},
	} {
		r := askFrom(h, fromPhone, "POST", at, tt.body, nil)
		if got := errorCode(t, r); r.StatusCode != tt.status || got != tt.code || r.Header.Get("Retry-After") != tt.retry {
			t.Errorf("%s: %d %s Retry-After %q", tt.body, r.StatusCode, got, r.Header.Get("Retry-After"))
		}
	}
	r = askFrom(h, fromPhone, "POST", at, `{"code":"`+fakeCode+`"}`, nil)
	checkHeaders(t, r)
	m = read(t, r)
	if r.StatusCode != 200 || m["state"] != "active" || m["user"] != "alice" || m["expires_at"] == nil {
		t.Errorf("after: %d %v", r.StatusCode, m)
	}
	first := m["reaches"].([]any)[0].(map[string]any)
	if keysOf(first) != "address name ports until" || first["name"] != "app" || first["address"] != "10.77.0.1" || first["ports"].([]any)[0] != "tcp:8080" {
		t.Errorf("reach %v", first)
	}
	if n := len(m["reaches"].([]any)); n != 3 {
		t.Errorf("%d reaches, want 3: app twice, wiki once", n)
	}
	if r := askFrom(h, fromPhone, "POST", at, `{"code":"`+fakeCode+`"}`, nil); r.StatusCode != 401 || errorCode(t, r) != "code_used" || r.Header.Get("Retry-After") != "17" {
		t.Errorf("used: %d", r.StatusCode)
	}
	if r := askFrom(h, fromPhone, "DELETE", at, "", nil); r.StatusCode != 204 || bodyOf(t, r) != "" {
		t.Errorf("sign-out: %d", r.StatusCode)
	}
	if m := read(t, askFrom(h, fromPhone, "GET", at, "", nil)); m["state"] != "required" {
		t.Errorf("after sign-out: %v", m)
	}
	if r := askFrom(h, fromPhone, "PUT", at, "", nil); r.StatusCode != 405 {
		t.Errorf("PUT: %d", r.StatusCode)
	}
}

// TestSourceNamesTheDevice: the source address, unmapped and without zone, and no header.
func TestSourceNamesTheDevice(t *testing.T) {
	f := newFake()
	h, _ := tunnelUnderTest(t, f)
	for from, want := range map[string]netip.Addr{
		"10.77.0.2:1": phone4, "[::ffff:10.77.0.2]:1": phone4, "[fd42:7::2]:1": phone6, "[fd42:7::2%vpn0]:1": phone6,
	} {
		f.froms = nil
		r := askFrom(h, from, "GET", "http://10.77.0.1/api/v1/session", "", func(r *http.Request) {
			r.Header.Set("X-Forwarded-For", "10.77.0.99")
			r.Header.Set("X-Real-IP", "10.77.0.99")
			r.Header.Set("Forwarded", "for=10.77.0.99")
		})
		if r.StatusCode != 200 || len(f.froms) != 1 || f.froms[0] != want {
			t.Errorf("%s: %d, control was asked for %v", from, r.StatusCode, f.froms)
		}
	}
	if r := askFrom(h, "10.77.0.9:1", "GET", "http://10.77.0.1/", "", nil); r.StatusCode != 404 || !strings.Contains(bodyOf(t, r), "belongs to no device of this network") {
		t.Errorf("unknown device: %d", r.StatusCode)
	}
	if r := askFrom(h, "@", "GET", "http://10.77.0.1/", "", nil); r.StatusCode != 500 {
		t.Errorf("no address: %d", r.StatusCode)
	}
}

func TestTunnelForeignOrigins(t *testing.T) {
	for origin, status := range map[string]int{
		"http://10.77.0.1":      200,
		"http://10.77.0.1:80":   200,
		"https://10.77.0.1":     403,
		"http://10.77.0.1:8080": 403, // the app, which holds what people upload
		"http://[fd42:7::1]":    403,
		"http://evil.example":   403,
		"null":                  403,
		"http://10.77.0.1.evil": 403,
		"":                      403,
	} {
		f := newFake()
		h, _ := tunnelUnderTest(t, f)
		r := askFrom(h, fromPhone, "POST", "http://10.77.0.1/api/v1/session", `{"code":"`+fakeCode+`"}`, func(r *http.Request) { r.Header.Set("Origin", origin) })
		if r.StatusCode != status || f.active != (status == 200) {
			t.Errorf("Origin %q: %d, active %v", origin, r.StatusCode, f.active)
		}
		f.active = true
		want := 204
		if status != 200 {
			want = 403
		}
		if r := askFrom(h, fromPhone, "DELETE", "http://10.77.0.1/api/v1/session", "", func(r *http.Request) { r.Header.Set("Origin", origin) }); r.StatusCode != want {
			t.Errorf("DELETE with Origin %q: %d", origin, r.StatusCode)
		}
	}
}

// TestForeignHostsLandOnSignIn is line "any plain-HTTP address leads to the sign-in page",
// with the attempts to make it lead elsewhere.
func TestForeignHostsLandOnSignIn(t *testing.T) {
	h, _ := tunnelUnderTest(t, newFake())
	app := func(next string) string { return "?next=" + url.QueryEscape(next) }
	for _, tt := range []struct {
		from, method, host, uri string
		want                    string
	}{
		{fromPhone, "GET", "example.com", "/", "http://10.77.0.1/"},
		{fromPhone, "GET", "example.com", "/path?q=1", "http://10.77.0.1/"},
		{fromPhone, "GET", "192.168.40.7", "/wiki", "http://10.77.0.1/"},
		{fromPhone, "POST", "example.com", "/api/v1/session", "http://10.77.0.1/"},
		{fromPhone, "GET", "", "/", "http://10.77.0.1/"},
		{fromPhone, "GET", "example.com", assets.prefix + "style.css", "http://10.77.0.1/"},
		{"[fd42:7::2]:1", "GET", "example.com", "/", "http://[fd42:7::1]/"},
		{fromPhone, "GET", "10.77.0.1:8080", "/", "http://10.77.0.1/" + app("http://10.77.0.1:8080/")},
		{fromPhone, "GET", "10.77.0.1:8080", "/files/a%20b?x=1&y=%2F", "http://10.77.0.1/" + app("http://10.77.0.1:8080/files/a%20b?x=1&y=%2F")},
		{fromPhone, "GET", "10.77.0.1:9000", "/", "http://10.77.0.1/" + app("http://10.77.0.1:9000/")},
		{fromPhone, "GET", "[fd42:7::1]:8080", "/f", "http://[fd42:7::1]/" + app("http://[fd42:7::1]:8080/f")},
		{fromPhone, "POST", "10.77.0.1:8080", "/upload", "http://10.77.0.1/"},
		{fromPhone, "GET", "10.77.0.1:8080", "//evil.example/x", "http://10.77.0.1/" + app("http://10.77.0.1:8080//evil.example/x")},
		{fromPhone, "GET", "10.77.0.1:0", "/", "http://10.77.0.1/"},
		{fromPhone, "GET", "10.77.0.1:99999", "/", "http://10.77.0.1/"},
		{fromPhone, "GET", "10.77.0.1:8080@evil.example", "/", "http://10.77.0.1/"},
		{fromPhone, "GET", "evil.example:8080#10.77.0.1", "/", "http://10.77.0.1/"},
		{fromPhone, "GET", "10.77.0.2:8080", "/", "http://10.77.0.1/"}, // a peer, not the gateway
		{fromPhone, "GET", "010.077.0.1:8080", "/", "http://10.77.0.1/"},
		{fromPhone, "GET", "10.77.0.1:8080", "/" + strings.Repeat("a", maxNext), "http://10.77.0.1/"},
	} {
		r := askFrom(h, tt.from, tt.method, "http://10.77.0.1"+tt.uri, "", func(r *http.Request) { r.Host = tt.host })
		if got := r.Header.Get("Location"); r.StatusCode != 303 || got != tt.want {
			t.Errorf("%s %s%s: %d to %q, want %q", tt.method, tt.host, tt.uri, r.StatusCode, got, tt.want)
		}
		if r.Header.Get("Connection") != "close" || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Connection %q, Cache-Control %q", tt.host, r.Header.Get("Connection"), r.Header.Get("Cache-Control"))
		}
	}
	// Our own Host is never redirected.
	for _, host := range []string{"10.77.0.1", "10.77.0.1:80", "[fd42:7::1]", "[FD42:7::1]:80"} {
		if r := askFrom(h, fromPhone, "GET", "http://10.77.0.1/", "", func(r *http.Request) { r.Host = host }); r.StatusCode != 200 {
			t.Errorf("own host %s: %d", host, r.StatusCode)
		}
	}
}

// TestNoOpenRedirect gives the sign-in page addresses of others to go on to.
func TestNoOpenRedirect(t *testing.T) {
	h, _ := tunnelUnderTest(t, newFake())
	for next, want := range map[string]string{
		"http://10.77.0.1:8080/files":                           "http://10.77.0.1:8080/files",
		"http://10.77.0.1:8080":                                 "http://10.77.0.1:8080/",
		"http://10.77.0.1:8080/a?b=c#frag":                      "http://10.77.0.1:8080/a?b=c",
		"http://[fd42:7::1]:8080/x":                             "http://[fd42:7::1]:8080/x",
		"http://10.77.0.1/":                                     "", // this page
		"https://10.77.0.1:8080/":                               "",
		"//10.77.0.1:8080/":                                     "",
		"/files":                                                "",
		"javascript:alert(1)":                                   "",
		"http://evil.example/":                                  "",
		"http://10.77.0.1:8080@evil.example/":                   "",
		"http://evil.example@10.77.0.1:8080/":                   "",
		"http://10.77.0.1:8080\\@evil.example/":                 "",
		"http://10.77.0.1.evil.example:8080/":                   "",
		"http://10.77.0.1:8080%2f@evil.example/":                "",
		"http:10.77.0.1:8080/":                                  "",
		"http:/\\evil.example":                                  "",
		"http://0x0a4d0001:8080/":                               "",
		"http://172818433:8080/":                                "",
		"http://192.168.40.7:8080/":                             "",
		"http://[fd42:7::1%25eth0]:8080/":                       "",
		"http://10.77.0.1:8080/\nLocation: x":                   "",
		" http://10.77.0.1:8080/":                               "",
		"http://10.77.0.1:8080/" + strings.Repeat("a", maxNext): "",
		`http://10.77.0.1:8080/"><script>`:                      "http://10.77.0.1:8080/%22%3E%3Cscript%3E",
	} {
		r := askFrom(h, fromPhone, "GET", "http://10.77.0.1/?next="+url.QueryEscape(next), "", nil)
		b := bodyOf(t, r)
		_, rest, ok := strings.Cut(b, `data-next="`)
		got, _, _ := strings.Cut(rest, `"`)
		if !ok {
			got = ""
		}
		if r.StatusCode != 200 || got != want {
			t.Errorf("next %q: %d, goes on to %q, want %q", next, r.StatusCode, got, want)
		}
	}
}

func TestSessionPage(t *testing.T) {
	f := newFake()
	h, l := tunnelUnderTest(t, f)
	r := askFrom(h, fromPhone, "GET", "http://10.77.0.1/", "", nil)
	b := bodyOf(t, r)
	checkHeaders(t, r)
	for _, want := range []string{"<b>alice</b>", "<b>phone</b>", "10.77.0.2", "Sign in</button>", "<h2>A code opens</h2>", "<h2>Closed, and why</h2>"} {
		if !strings.Contains(b, want) {
			t.Errorf("signed out: no %q", want)
		}
	}
	if strings.Contains(b, "Open the app") || strings.Contains(b, "Sign out") {
		t.Error("signed out: offers the app, or sign-out")
	}
	f.active, f.expires, f.reaches = true, time.Now().Add(time.Hour), openReaches()
	b = bodyOf(t, askFrom(h, "[fd42:7::2]:1", "GET", "http://[fd42:7::1]/", "", nil))
	for _, want := range []string{`href="http://[fd42:7::1]:8080/"`, "Sign out", "Renew my session", "<h2>A new code opens</h2>", "wiki", "tcp:443", "icmp",
		"Needs a fresher code", "not at this time", "ask your administrator", "192.168.60.0/24", "udp:5000-5010", "everything"} {
		if !strings.Contains(b, want) {
			t.Errorf("signed in: no %q", want)
		}
	}
	f.reaches = []rules.Reach{reach("wiki", "192.168.40.8/32", 1, 0, 65535, rules.Allowed, time.Time{}), reach("wiki", "fd40::8/128", 58, 0, 65535, rules.Allowed, time.Time{})}
	if b := bodyOf(t, askFrom(h, fromPhone, "GET", "http://10.77.0.1/", "", nil)); strings.Count(b, "icmp</code>") != 1 {
		t.Errorf("ping is named for each family:\n%s", b)
	}
	// What is shut says why, and when it opens if it does.
	opens := time.Date(2030, 3, 4, 8, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		reason rules.Reason
		until  time.Time
		want   string
	}{
		{rules.OutsideTime, opens, `Is granted to you, but not at this time. It opens <time datetime="2030-03-04T08:00:00Z">4 March, 08:00 UTC</time>.`},
		{rules.OutsideTime, time.Time{}, "Was granted to you for a time that is over. If you still need it, ask your administrator.</p>"},
		{rules.PeerOffline, time.Time{}, "Is a device whose owner is not signed in there.</p>"},
		{rules.StaleCode, time.Time{}, "Needs a fresher code than your last one.</p>"},
		{rules.NoGrant, time.Time{}, "Is not granted to you. If you need it, ask your administrator.</p>"},
	} {
		f.reaches = []rules.Reach{reach("erp", "192.168.40.8/32", 6, 443, 443, test.reason, test.until)}
		if b := bodyOf(t, askFrom(h, fromPhone, "GET", "http://10.77.0.1/", "", nil)); !strings.Contains(b, test.want) {
			t.Errorf("%v: no %q in\n%s", test.reason, test.want, b)
		}
	}
	f.reaches = []rules.Reach{reach("<script>x", "10.77.0.1/32", 6, 1, 8079, rules.Allowed, time.Time{})}
	b = bodyOf(t, askFrom(h, fromPhone, "GET", "http://10.77.0.1/?next="+url.QueryEscape("http://10.77.0.1:8080/f"), "", nil))
	if strings.Contains(b, "Open the app") || strings.Contains(b, `href="http://10.77.0.1:8080/f"`) || !strings.Contains(b, "not open to this device") {
		t.Errorf("offers what is not open:\n%s", b)
	}
	if strings.Contains(b, "<script>x") {
		t.Error("a name is not escaped")
	}
	f.fail = errors.New("broken inside")
	r = askFrom(h, fromPhone, "GET", "http://10.77.0.1/?next=secret-place", "", nil)
	if b := bodyOf(t, r); r.StatusCode != 500 || strings.Contains(b, "broken") || len(l.lines) != 1 || strings.Contains(l.lines[0], "secret-place") || !strings.Contains(l.lines[0], "broken inside") {
		t.Errorf("%d, log %q, page %s", r.StatusCode, l.lines, b)
	}
	f.fail = control.Refuse("user_disabled", "<b>alice</b>")
	if r := askFrom(h, fromPhone, "GET", "http://10.77.0.1/", "", nil); r.StatusCode != 409 || !strings.Contains(bodyOf(t, r), "The account &lt;b&gt;alice&lt;/b&gt; is disabled") {
		t.Errorf("disabled: %d", r.StatusCode)
	}
}

func TestPorts(t *testing.T) {
	for want, r := range map[string]rules.Reach{
		"*":             {},
		"icmp":          {Proto: 1},
		"ipv6-icmp":     {Proto: 58},
		"47":            {Proto: 47},
		"tcp:443":       {Proto: 6, First: 443, Last: 443},
		"tcp:*":         {Proto: 6, First: 0, Last: 65535},
		"udp:5000-5010": {Proto: 17, First: 5000, Last: 5010},
	} {
		if got := portsOf(r); got != want {
			t.Errorf("portsOf(%+v) = %q, want %q", r, got, want)
		}
	}
}

// TestAddressThatIsOpenByNow: a connection that was led here before the sign-in brings a
// request after it, and is sent to where it wanted to go instead of back to the sign-in page.
func TestAddressThatIsOpenByNow(t *testing.T) {
	f := newFake()
	h, _ := tunnelUnderTest(t, f)
	f.set(func(f *fakeService) { f.active, f.reaches, f.expires = true, openReaches(), time.Now().Add(time.Hour) })
	for host, want := range map[string]string{
		"10.77.0.1:8080":              "http://10.77.0.1:8080//x/y%20z?q=1",
		"10.77.0.1:9000":              "http://10.77.0.1/?next=" + url.QueryEscape("http://10.77.0.1:9000//x/y%20z?q=1"), // not open
		"203.0.113.9":                 "http://10.77.0.1/",
		"example.com":                 "http://10.77.0.1/",
		"10.77.0.1:8080@evil.example": "http://10.77.0.1/",
	} {
		r := askFrom(h, fromPhone, "GET", "http://10.77.0.1//x/y%20z?q=1", "", func(r *http.Request) { r.Host = host })
		if got := r.Header.Get("Location"); r.StatusCode != 303 || got != want || r.Header.Get("Connection") != "close" {
			t.Errorf("%s: %d to %q, want %q", host, r.StatusCode, got, want)
		}
	}
}
