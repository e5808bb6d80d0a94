package portal

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"vpnd/internal/control"
	"vpnd/internal/words"
)

// TestScreens visits every page in every state and language, on a phone and a desktop, light
// and dark, and keeps the pictures in the folder that VPND_SCREENSHOTS names. It fails for what a
// machine can see: a page wider than its screen, text or a control without enough contrast or size.
func TestScreens(t *testing.T) {
	dir := os.Getenv("VPND_SCREENSHOTS")
	if dir == "" {
		dir = t.TempDir()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, l := range words.All() {
		t.Run("phone "+l.Code, func(t *testing.T) { screens(t, dir, true, l) })
		t.Run("desktop "+l.Code, func(t *testing.T) { screens(t, dir, false, l) })
	}
}

const desktopAgent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"

const phoneAgent = "Mozilla/5.0 (Linux; Android 16; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Mobile Safari/537.36"

func screens(t *testing.T, dir string, phone bool, l *words.Language) {
	s := newSite(t)
	b := newTab(t, s, "")
	where, agent := "desktop", desktopAgent
	if phone {
		where, agent = "phone", phoneAgent
	}
	call(b, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{UserAgent: agent, AcceptLanguage: l.Code})
	say := func(id string) string {
		before, _, _ := strings.Cut(l.Text(id, "wait", "{"), "{") // as far as the first parameter
		return strings.TrimRight(before, "0123456789 ")
	}
	shot := func(name string) {
		t.Helper()
		for _, dark := range []bool{true, false} {
			b.screen(phone, dark)
			light := "light"
			if dark {
				light = "dark"
			}
			if wide := b.value(`document.documentElement.scrollWidth > innerWidth ? 'wide' : ''`); wide != "" {
				t.Errorf("%s is wider than a %s", name, where)
			}
			if faint := b.value(faintText); faint != "" {
				t.Errorf("%s, %s: too little contrast: %s", name, light, faint)
			}
			if nameless := b.value(namelessParts); nameless != "" {
				t.Errorf("%s: a screen reader has no name for %s", name, nameless)
			}
			if small := b.value(smallControls); small != "" {
				t.Errorf("%s: too small for a finger: %s", name, small)
			}
			file := filepath.Join(dir, fmt.Sprintf("%s-%s-%s-%s.png", name, l.Code, where, light))
			if err := os.WriteFile(file, get(b, chromedp.FullScreenshot(100)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.screen(phone, false)

	b.open(s.url + "/")
	shot("home")
	b.open(s.url + "/enroll")
	b.see("#ended")
	shot("enroll-incomplete")
	b.value(`location.hash = 'wrong'`)
	b.says("#ended", say("ended.invitation_unknown"))
	shot("enroll-unknown")
	b.value(`location.hash = "` + fakeToken + `"`)
	b.see("img.qr")
	shot("enroll-1-authenticator")
	b.click("#step-app [data-next]")
	shot("enroll-2-code")
	b.write("#code", "000000")
	b.click("#step-code button[type=submit]")
	b.says("#code-error", l.Refusal("code_wrong", nil)[:20])
	shot("enroll-2-wrong")
	s.set(func(f *fakeService) { f.codes["111111"] = true })
	b.write("#code", "111111")
	b.click("#step-code button[type=submit]")
	b.says("#code-error", say("code.next"))
	shot("enroll-2-used")
	b.write("#code", fakeCode)
	b.write("#device", "phone")
	b.click("#step-code button[type=submit]")
	b.see("[data-config-qr] svg")
	shot("enroll-3-tunnel")
	s.set(func(f *fakeService) { f.state = "connected" })
	b.says("#step-live", say("enrolling.connected_sign_in"))
	shot("enroll-4-connected")
	s.set(func(f *fakeService) { f.state = "active" })
	b.says("#all-done", say("enroll.done"))
	shot("enroll-5-done")

	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.open(s.url + "/enroll")
	b.says("noscript", say("page.no_script_title"))
	shot("enroll-noscript")
	b.open("http://10.77.0.1/")
	b.says("noscript", "JavaScript")
	shot("session-noscript")
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: false})

	s.set(func(f *fakeService) { f.codes = map[string]bool{} })
	b.open("http://10.77.0.1:8080/files/report")
	b.says("h1", say("session.heading_out"))
	shot("session-required")
	b.write("#code", "000000")
	b.click("#signin button")
	b.says("#code-error", l.Refusal("code_wrong", nil)[:20])
	shot("session-wrong")
	b.write("#code", "999999")
	b.click("#signin button")
	b.says("#code-error", say("code.again"))
	shot("session-locked")
	s.set(func(f *fakeService) {
		f.active, f.reaches, f.expires = true, openReaches(), time.Now().Add(42257*time.Second)
	})
	b.open("http://10.77.0.1/")
	b.says("[data-countdown]", "11:4")
	shot("session-active")
	s.set(func(f *fakeService) { f.reaches, f.policy = publishedReaches(), publishedPolicy })
	b.open("http://10.77.0.1/")
	b.says("main", "psql -h 10.77.128.2")
	shot("session-published")
	s.set(func(f *fakeService) { f.reaches = nil })
	b.open("http://10.77.0.1/")
	b.says("main", say("session.open_nothing"))
	shot("session-nothing")
	s.set(func(f *fakeService) {
		f.fail = control.Refuse("address_of_nobody", phone4)
	})
	b.mu.Lock()
	b.refused = true
	b.mu.Unlock()
	b.open("http://10.77.0.1/")
	shot("session-unknown")
}

// faintText finds text whose contrast is less than WCAG 2.2's 4.5:1 (3:1 when large).
const faintText = `(() => {
	const rgb = (c) => { const m = c.match(/[\d.]+/g).map(Number); if (c.startsWith('color(')) for (let i = 0; i < 3; i++) m[i] *= 255; return m; };
	const lum = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
		.reduce((a, v, i) => a + v * [.2126, .7152, .0722][i], 0);
	const back = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > .99) return c; } return [255, 255, 255]; };
	const bad = [];
	for (const e of document.querySelectorAll('body *')) {
		if (!e.checkVisibility() || e.closest('.sr, noscript, svg') || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
		const c = getComputedStyle(e), a = lum(rgb(c.color)), b = lum(back(e));
		const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
		const large = parseFloat(c.fontSize) >= 24;
		if (ratio < (large ? 3 : 4.5)) bad.push(e.textContent.trim().slice(0, 40) + ' ' + ratio.toFixed(2));
	}
	return bad.join('; ');
})()`

// smallControls finds controls less than 24 by 24 pixels, WCAG 2.2's least; links within
// a sentence are excepted there.
const smallControls = `[...document.querySelectorAll('button, .button, input')].filter((e) => e.checkVisibility())
	.filter((e) => { const r = e.getBoundingClientRect(); return r.width < 24 || r.height < 24; })
	.map((e) => e.textContent || e.name).join('; ')`

// namelessParts finds what a screen reader could not name, and headings out of order.
const namelessParts = `(() => {
	const bad = [];
	const seen = (e) => e.checkVisibility();
	for (const e of document.querySelectorAll('input')) if (seen(e) && !e.labels.length) bad.push(e.outerHTML);
	for (const e of document.querySelectorAll('button, a')) if (seen(e) && !e.textContent.trim()) bad.push(e.outerHTML);
	for (const e of document.querySelectorAll('img')) if (!e.hasAttribute('alt')) bad.push(e.outerHTML);
	for (const e of document.querySelectorAll('svg')) if (!e.getAttribute('aria-label')) bad.push('an svg');
	for (const e of document.querySelectorAll('[aria-describedby]')) for (const id of e.getAttribute('aria-describedby').split(' ')) if (!document.getElementById(id)) bad.push('#' + id);
	let level = 0;
	for (const e of document.querySelectorAll('h1, h2, h3, h4')) if (seen(e)) { const n = +e.tagName[1]; if (n > level + 1) bad.push(e.outerHTML); level = n; }
	if ([...document.querySelectorAll('h1')].filter(seen).length !== 1) bad.push('not one h1');
	if (!document.documentElement.lang || !document.title) bad.push('no language or title');
	return bad.join('; ');
})()`
