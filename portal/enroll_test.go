package portal

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"vpnd/internal/control"
)

func TestBegin(t *testing.T) {
	f := newFake()
	h, l := publicUnderTest(t, f)
	r := ask(h, "POST", publicURL+"/api/v1/enroll/begin", `{"token":"`+fakeToken+`"}`, nil)
	checkHeaders(t, r)
	m := read(t, r)
	if r.StatusCode != 200 || keysOf(m) != "expires_at otpauth_url qr_svg secret user" {
		t.Fatalf("status %d, fields %s", r.StatusCode, keysOf(m))
	}
	if !strings.Contains(m["qr_svg"].(string), "<svg") || m["secret"] != fakeSecret || m["user"] != "alice" {
		t.Errorf("answer %v", m)
	}
	cs := r.Cookies()
	if len(cs) != 1 {
		t.Fatalf("cookies %v", cs)
	}
	c := cs[0]
	if len(c.Value) != 43 || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/api/v1/enroll" || c.Domain != "" {
		t.Errorf("cookie %v", c.Raw)
	}
	if left := time.Until(c.Expires); left < 47*time.Hour+59*time.Minute { // the answer is repeated for an hour more
		t.Errorf("the cookie ends in %v", left)
	}
	if f.browser != c.Value {
		t.Errorf("control was told browser %q", f.browser)
	}

	again := ask(h, "POST", publicURL+"/api/v1/enroll/begin", `{"token":"`+fakeToken+`"}`, func(r *http.Request) { r.AddCookie(c) })
	if got := again.Cookies()[0].Value; got != c.Value {
		t.Errorf("the same browser got another cookie: %q, had %q", got, c.Value)
	}
	other := ask(h, "POST", publicURL+"/api/v1/enroll/begin", `{"token":"`+fakeToken+`"}`, nil)
	if other.Cookies()[0].Value == c.Value {
		t.Error("two browsers got one cookie")
	}
	for _, bad := range []string{"x", strings.Repeat("A", 42), strings.Repeat("A", 42) + "B", strings.Repeat("A", 44), strings.Repeat("A", 42) + "="} {
		r := ask(h, "POST", publicURL+"/api/v1/enroll/begin", `{"token":"`+fakeToken+`"}`, func(r *http.Request) {
			r.Header.Set("Cookie", browserCookie+"="+bad)
		})
		if r.Cookies()[0].Value == bad {
			t.Errorf("cookie %q was taken", bad)
		}
	}

	f.enrolled = true
	m = read(t, ask(h, "POST", publicURL+"/api/v1/enroll/begin", `{"token":"`+fakeToken+`"}`, nil))
	if keysOf(m) != "expires_at totp user" || m["totp"] != "enrolled" {
		t.Errorf("of a user who has a code: %v", m)
	}
	if len(l.lines) != 0 {
		t.Errorf("logged: %q", l.lines)
	}
}

func TestFinishAndStatus(t *testing.T) {
	f := newFake()
	h, _ := publicUnderTest(t, f)
	begun := ask(h, "POST", publicURL+"/api/v1/enroll/begin", `{"token":"`+fakeToken+`"}`, nil)
	c := begun.Cookies()[0]
	withCookie := func(r *http.Request) { r.AddCookie(c) }
	post := func(path, body string, change func(*http.Request)) *http.Response {
		return ask(h, "POST", publicURL+"/api/v1/enroll/"+path, body, change)
	}
	for _, tt := range []struct {
		name, body string
		change     func(*http.Request)
		status     int
		code       string
		retry      string
	}{
		{"another browser", finishBody(fakeCode, "phone"), nil, 409, "other_browser", ""},
		{"wrong code", finishBody("000000", "phone"), withCookie, 401, "code_invalid", ""},
		{"locked", finishBody("999999", "phone"), withCookie, 429, "locked", "870"},
		{"bad name", finishBody(fakeCode, "Phone!"), withCookie, 400, "invalid", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := post("finish", tt.body, tt.change)
			checkHeaders(t, r)
			if got := errorCode(t, r); r.StatusCode != tt.status || got != tt.code || r.Header.Get("Retry-After") != tt.retry {
				t.Errorf("%d %s Retry-After %q, want %d %s %q", r.StatusCode, got, r.Header.Get("Retry-After"), tt.status, tt.code, tt.retry)
			}
		})
	}
	var first string
	for range 2 { // a repeat gives the same answer
		r := post("finish", finishBody(fakeCode, "phone"), withCookie)
		if r.StatusCode != 201 || r.Header.Get("Link") != `<http://10.77.0.1/>; rel="next"` {
			t.Errorf("%d, Link %q", r.StatusCode, r.Header.Get("Link"))
		}
		b := bodyOf(t, r)
		if first != "" && b != first {
			t.Errorf("the repeat differs:\n%s\n%s", first, b)
		}
		first = b
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(first), &m); err != nil || keysOf(m) != "addresses config device" {
		t.Errorf("answer %s", first)
	}
	last := f.finishes[len(f.finishes)-1]
	if want := (control.FinishRequest{Token: fakeToken, Browser: c.Value, Code: fakeCode, Device: "phone", PublicKey: aKey}); last != want {
		t.Errorf("control got %+v", last)
	}

	for _, state := range []string{"waiting", "connected", "active"} {
		f.set(func(f *fakeService) { f.state = state })
		m := read(t, post("status", `{"token":"`+fakeToken+`","public_key":"`+aKey+`"}`, nil))
		if len(m) != 1 || m["state"] != state {
			t.Errorf("status %v", m)
		}
	}
	if r := post("status", `{"token":"`+fakeToken+`","public_key":"other"}`, nil); r.StatusCode != 404 {
		t.Errorf("status of another key: %d", r.StatusCode)
	}
	f.set(func(f *fakeService) { f.codes = map[string]bool{fakeCode: true}; f.used = "" })
	if r := post("finish", finishBody(fakeCode, "phone"), withCookie); r.StatusCode != 401 || r.Header.Get("Retry-After") != "17" || errorCode(t, r) != "code_used" {
		t.Errorf("a used code: %d Retry-After %q", r.StatusCode, r.Header.Get("Retry-After"))
	}
}
