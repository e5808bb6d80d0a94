package portal

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
)

// TestSignIn goes from an address somewhere to the app, and out again, by keyboard.
func TestSignIn(t *testing.T) {
	s := newSite(t)
	b := newTab(t, s, "")
	b.open("http://example.com/somewhere?x=1")
	b.says("h1", "Sign in")
	if got := b.value("location.href"); got != "http://10.77.0.1/" {
		t.Errorf("landed on %s", got)
	}
	b.says("main", "phone")
	b.says("main", "A code opens")
	b.says(".reach.shut", "wiki")

	b.open("http://10.77.0.1:8080/files/report?v=2")
	b.says("main", "Then you go on to http://10.77.0.1:8080/files/report?v=2")
	b.wait(`document.activeElement.id === 'code'`)
	b.keys("12345" + kb.Enter)
	b.says("#code-error", "six digits")
	b.write("#code", "000000")
	b.keys(kb.Enter)
	b.says("#code-error", "not right")
	b.write("#code", "999999")
	b.keys(kb.Enter)
	b.says("#code-error", "You can try again in 15 minutes")
	b.write("#code", fakeCode)
	b.keys(kb.Enter)
	b.says("#app", "the app at /files/report?v=2")

	b.open("http://10.77.0.1/")
	b.says("h1", "You are signed in")
	b.says("[data-countdown]", "11:5")
	first := b.value(`document.querySelector('[data-countdown]').innerText`)
	b.wait(`document.querySelector('[data-countdown]').innerText !== '` + first + `'`)
	b.says(".reach.open", "wiki")
	b.says(".reach.shut", "Needs a fresher code")
	b.click(`a[href="http://10.77.0.1:8080/"]`)
	b.says("#app", "the app at /")

	b.open("http://10.77.0.1/")
	b.write("#code", fakeCode)
	b.keys(kb.Enter)
	b.says("#code-error", "The next code comes in 1")
	b.click("#signout")
	b.says("h1", "Sign in")
	if b.open("http://10.77.0.1:8080/"); !strings.HasPrefix(b.value("location.href"), "http://10.77.0.1/?next=") {
		t.Error("the app is open after sign-out")
	}
}

// TestSessionEnds: the page does not go on saying "signed in".
func TestSessionEnds(t *testing.T) {
	s := newSite(t)
	b := newTab(t, s, "")
	s.set(func(f *fakeService) {
		f.active, f.reaches, f.expires = true, openReaches(), time.Now().Add(8*time.Second)
	})
	b.open("http://10.77.0.1/")
	b.says("[data-countdown]", "0:0")
	time.AfterFunc(time.Until(s.expires), func() {
		s.set(func(f *fakeService) { f.active, f.reaches = false, closedReaches() })
	})
	b.says("h1", "Sign in")
}

// TestClockIsWrong: the countdown follows the gateway's clock, not the visitor's.
func TestClockIsWrong(t *testing.T) {
	s := newSite(t)
	s.active, s.reaches, s.expires = true, openReaches(), time.Now().Add(2*time.Hour+5*time.Minute)
	b := newTab(t, s, `const real = Date.now; Date.now = () => real() - 5 * 3600e3;`)
	b.open("http://10.77.0.1/")
	b.says("[data-countdown]", "2:04:")
}
