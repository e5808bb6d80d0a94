package portal

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"vpnd/internal/control"
	"vpnd/internal/words"
)

func speaking(accept string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Accept-Language", accept) }
}

// TestPagesSpeakTheReadersLanguage: pages and errors alike, by what the browser prefers.
func TestPagesSpeakTheReadersLanguage(t *testing.T) {
	f := newFake()
	outside, _ := publicUnderTest(t, f)
	inside, _ := tunnelUnderTest(t, f)
	for _, l := range words.All() {
		for _, path := range []string{"/", "/enroll", "/nothing"} {
			r := ask(outside, "GET", publicURL+path, "", speaking(l.Code))
			if b := bodyOf(t, r); r.Header.Get("Content-Language") != l.Code || !strings.Contains(b, `<html lang="`+l.Code+`">`) {
				t.Errorf("%s in %s: Content-Language %q", path, l.Name(), r.Header.Get("Content-Language"))
			}
		}
		b := bodyOf(t, askFrom(inside, fromPhone, "GET", "http://10.77.0.1/", "", speaking(l.Code)))
		if !strings.Contains(b, string(l.HTML("session.hello", "user", "alice"))) {
			t.Errorf("the sign-in page in %s:\n%s", l.Name(), b)
		}
		e := read(t, askFrom(inside, fromPhone, "POST", "http://10.77.0.1/api/v1/session", `{"code":"000000"}`, speaking(l.Code)))["error"].(map[string]any)
		if e["code"] != "code_invalid" || e["message"] != l.Refusal("code_wrong", nil) {
			t.Errorf("a wrong code in %s: %v", l.Name(), e)
		}
		f.set(func(f *fakeService) { f.fail = control.Refuse("user_disabled", "alice") })
		if b := bodyOf(t, askFrom(inside, fromPhone, "GET", "http://10.77.0.1/", "", speaking(l.Code))); !strings.Contains(b, l.Refusal("user_disabled", map[string]string{"user": "alice"})) {
			t.Errorf("a refusal's page in %s:\n%s", l.Name(), b)
		}
		f.set(func(f *fakeService) { f.fail = nil })
	}
}

// TestLanguageStays: a link chooses it, without a script, and it stays; where the person
// wanted to go stays, too.
func TestLanguageStays(t *testing.T) {
	f := newFake()
	outside, _ := publicUnderTest(t, f)
	inside, _ := tunnelUnderTest(t, f)
	for _, tt := range []struct {
		get    func(path string, change func(*http.Request)) *http.Response
		path   string
		link   string // in the page, as HTML
		to     string
		secure bool
	}{
		{func(p string, c func(*http.Request)) *http.Response { return ask(outside, "GET", publicURL+p, "", c) }, "/enroll", `href="/enroll?lang=fr"`, "/enroll", true},
		{func(p string, c func(*http.Request)) *http.Response { return ask(outside, "GET", publicURL+p, "", c) }, "/", `href="/?lang=fr"`, "/", true},
		{func(p string, c func(*http.Request)) *http.Response {
			return askFrom(inside, fromPhone, "GET", "http://10.77.0.1"+p, "", c)
		}, "/?next=http%3A%2F%2F10.77.0.1%3A8080%2F", `href="/?lang=fr&amp;next=http%3A%2F%2F10.77.0.1%3A8080%2F"`, "/?next=http%3A%2F%2F10.77.0.1%3A8080%2F", false},
	} {
		if b := bodyOf(t, tt.get(tt.path, nil)); !strings.Contains(b, tt.link) {
			t.Errorf("%s has no link %s:\n%s", tt.path, tt.link, b)
		}
		link := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(tt.link, `href="`), `"`), "&amp;", "&")
		r := tt.get(link, nil)
		if r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != tt.to || len(r.Cookies()) != 1 || r.Cookies()[0].Secure != tt.secure {
			t.Fatalf("%s: %d to %q with %v", link, r.StatusCode, r.Header.Get("Location"), r.Cookies())
		}
		r = tt.get(tt.to, func(q *http.Request) { q.AddCookie(r.Cookies()[0]); q.Header.Set("Accept-Language", "en") })
		if r.Header.Get("Content-Language") != "fr" {
			t.Errorf("%s after the choice is in %q", tt.to, r.Header.Get("Content-Language"))
		}
	}
	// Where nothing can be shown the choice is kept all the same.
	f.set(func(f *fakeService) { f.fail = control.Refuse("no_leader") })
	if r := askFrom(inside, fromPhone, "GET", "http://10.77.0.1/?lang=fr", "", nil); r.StatusCode != http.StatusSeeOther {
		t.Errorf("the choice without a leader: %d", r.StatusCode)
	}
}

// TestSignInInFrench: the choice is made in a browser, and goes on to hold for what scripts
// say and for the answers of the gateway.
func TestSignInInFrench(t *testing.T) {
	s := newSite(t)
	b := newTab(t, s, "")
	fr := words.For("fr")
	b.open("http://10.77.0.1:8080/files/report")
	b.says("h1", "Sign in")
	b.click(".languages a")
	b.says("h1", fr.Text("session.heading_out"))
	b.says("main", "http://10.77.0.1:8080/files/report")
	b.write("#code", "000000")
	b.click("#signin button")
	b.says("#code-error", "Ce code n’est pas le bon.")
	b.write("#code", "999999")
	b.click("#signin button")
	b.says("#code-error", "Vous pourrez réessayer dans 15 minutes")
	b.write("#code", fakeCode)
	b.click("#signin button")
	b.says("#app", "the app at /files/report")
	s.set(func(f *fakeService) { f.expires = time.Now().Add(90 * time.Minute) })
	b.open("http://10.77.0.1/")
	b.says("h1", fr.Text("session.heading_in"))
	b.says("[data-countdown]", "1:29:")
	b.click(".languages a")
	b.says("h1", "You are signed in.")
}
