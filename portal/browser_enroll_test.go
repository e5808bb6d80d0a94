package portal

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"vpnd/internal/control"
	"vpnd/peers/conf"
)

// scan reads a QR code of a page from a picture of it, as a camera would.
func (b *tab) scan(selector string) []byte {
	b.t.Helper()
	png := get(b, chromedp.ScreenshotScale(chromedp.CSS(selector), 3))
	file := filepath.Join(b.t.TempDir(), "qr.png")
	if err := os.WriteFile(file, png, 0o600); err != nil {
		b.t.Fatal(err)
	}
	out, err := exec.Command(need(b.t, "zbarimg"), "-q", "--raw", "-Sbinary", "--oneshot", file).Output()
	if err != nil {
		b.t.Fatalf("zbarimg of %s: %v", selector, err)
	}
	return out
}

// download clicks and returns the file's name and bytes.
func (b *tab) download(press func()) (string, []byte) {
	b.t.Helper()
	dir := b.t.TempDir()
	call(b, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: dir})
	press()
	for range 200 {
		fs, err := os.ReadDir(dir)
		if err != nil {
			b.t.Fatal(err)
		}
		if len(fs) == 1 && !strings.HasSuffix(fs[0].Name(), ".crdownload") {
			if text, err := os.ReadFile(filepath.Join(dir, fs[0].Name())); err == nil && len(text) > 0 {
				return fs[0].Name(), text
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.t.Fatal("no file was downloaded")
	return "", nil
}

// privateKey checks a downloaded config and returns its private key.
func privateKey(t *testing.T, s *site, config []byte) []byte {
	t.Helper()
	lines := strings.Split(string(config), "\n")
	line, ok := strings.CutPrefix(lines[1], "PrivateKey = ")
	if lines[0] != "[Interface]" || !ok {
		t.Fatalf("the file begins %q", lines[:2])
	}
	if want := fakeConfig().Text(line); string(config) != want {
		t.Errorf("the file is not the config with its key:\n%s\nwant:\n%s", config, want)
	}
	b, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	s.fakeService.mu.Lock()
	defer s.fakeService.mu.Unlock()
	if got := base64.StdEncoding.EncodeToString(k.PublicKey().Bytes()); got != s.used {
		t.Errorf("the file's key belongs to %s, enrolled was %s", got, s.used)
	}
	if b[0]&7 != 0 || b[31]&192 != 64 {
		t.Error("the private key is not clamped")
	}
	return b
}

// neverSent looks for a private key, in any spelling, in all that the browser has sent.
func neverSent(t *testing.T, s *site, key []byte) {
	t.Helper()
	sent := s.sent()
	if !strings.Contains(sent, s.used) {
		t.Fatal("not even the public key was sent: the capture does not work")
	}
	for _, spelling := range []string{
		base64.StdEncoding.EncodeToString(key), base64.RawURLEncoding.EncodeToString(key), hex.EncodeToString(key), string(key),
		base64.StdEncoding.EncodeToString(key)[:20], strings.Trim(fmt.Sprint([]byte(key)), "[]"),
	} {
		if strings.Contains(sent, spelling) {
			t.Errorf("the private key was sent, as %q", spelling)
		}
	}
	for _, b := range strings.Split(sent, "\n\n") {
		// The token is in bodies alone.
		head, _, _ := strings.Cut(b, "\n{")
		if strings.Contains(head, fakeToken) {
			t.Errorf("the token is in a request's line or headers: %s", head)
		}
	}
	for _, l := range s.logged.lines {
		for _, secret := range []string{fakeToken, fakeCode, s.used, base64.StdEncoding.EncodeToString(key)} {
			if strings.Contains(l, secret) {
				t.Errorf("logged: %s", l)
			}
		}
	}
}

// TestEnrolment goes the whole way from the link to a device that has signed in.
func TestEnrolment(t *testing.T) {
	s := newSite(t)
	b := newTab(t, s, "")
	b.open(s.url + "/enroll#" + fakeToken)
	b.says("#enroll h1", "Hello, alice")
	if got := b.value(`location.href`); got != s.url+"/enroll" {
		t.Errorf("the address bar still says %s", got)
	}
	want := "otpauth://totp/vpnd:alice?secret=" + fakeSecret + "&issuer=vpnd&algorithm=SHA1&digits=6&period=30"
	if got := string(b.scan("img.qr")); got != want {
		t.Errorf("the authenticator's QR code says %q", got)
	}
	if got := b.value(`document.querySelector('[data-totp-link]').href`); got != want {
		t.Errorf("the link is %q", got)
	}
	if got := b.value(`document.querySelector('[data-totp-secret]').textContent`); strings.ReplaceAll(got, " ", "") != fakeSecret || !strings.Contains(got, "JBSW Y3DP") {
		t.Errorf("the typed secret is %q", got)
	}
	b.click("#step-app [data-next]")

	b.write("#code", "000 000")
	b.write("#device", "my phone")
	b.click("#step-code button[type=submit]")
	b.says("#code-error", "not right")
	b.says("#code-error", "clock")
	s.set(func(f *fakeService) { f.codes["111111"] = true })
	b.write("#code", "111111")
	b.click("#step-code button[type=submit]")
	b.says("#code-error", "used already")
	b.says("#code-error", "The next code comes in 1")
	b.write("#code", "999999")
	b.click("#step-code button[type=submit]")
	b.says("#code-error", "too many wrong codes")
	b.says("#code-error", "try again in 15 minutes")
	b.write("#device", "-böse-")
	b.write("#code", fakeCode)
	b.click("#step-code button[type=submit]")
	b.says("#code-error", "a device name is")
	b.write("#device", "my phone")
	b.click("#step-code button[type=submit]")

	b.see("[data-config-qr] svg")
	b.says("#step-live", "waiting for your device to connect")
	name, file := b.download(func() { b.click("[data-download]") })
	if want := conf.TunnelName("alice", "my-phone") + ".conf"; name != want {
		t.Errorf("the file is called %q, want %q", name, want)
	}
	if got := b.scan("[data-config-qr]"); !bytes.Equal(got, file) {
		t.Errorf("the QR code says:\n%q\nthe file:\n%q", got, file)
	}
	key := privateKey(t, s, file)
	if got := b.value(`document.querySelector('#step-live [data-portal]').href`); got != "http://10.77.0.1/" {
		t.Errorf("where to sign in: %q", got)
	}

	// A reload takes it up where it was, with the same key.
	b.do(chromedp.Reload())
	b.see("[data-config-qr] svg")
	if _, again := b.download(func() { b.click("[data-download]") }); !bytes.Equal(again, file) {
		t.Error("after a reload the file is another")
	}

	s.set(func(f *fakeService) { f.state = "connected" })
	b.says("#step-live", "waiting for your code")
	b.see("#step-tunnel [data-reopen]")
	b.click("#step-tunnel [data-reopen]")
	b.see("[data-config-qr] svg")
	s.set(func(f *fakeService) { f.state = "active" })
	b.says("#all-done", "signed in")
	if got := b.value(`String(sessionStorage.length) + document.querySelectorAll('[data-config-qr] svg').length`); got != "00" {
		t.Errorf("the page still has the key: %s", got)
	}
	neverSent(t, s, key)
}

// TestEnrolmentWithoutWebCrypto uses the vendored library, and a user who has a code.
func TestEnrolmentWithoutWebCrypto(t *testing.T) {
	s := newSite(t)
	s.enrolled = true
	b := newTab(t, s, `
		const generate = crypto.subtle.generateKey;
		crypto.subtle.generateKey = function (a, ...rest) {
			if ((a.name ?? a) === 'X25519') return Promise.reject(new DOMException('Unrecognized name.', 'NotSupportedError'));
			return generate.call(this, a, ...rest);
		};`)
	b.open(s.url + "/enroll#" + fakeToken)
	b.says("#step-app", "have one for this gateway already")
	b.write("#code", fakeCode)
	b.write("#device", "laptop")
	s.set(func(f *fakeService) { f.lose = 1 }) // the answer is lost after the work was done
	b.click("#step-code button[type=submit]")
	b.says("#code-error", "could not confirm")
	b.click("#step-code button[type=submit]") // the same code and key again
	b.see("[data-config-qr] svg")
	if !strings.Contains(s.sent(), "vendor/x25519.js") {
		t.Error("the library was not loaded")
	}
	_, file := b.download(func() { b.click("[data-download]") })
	if got := b.scan("[data-config-qr]"); !bytes.Equal(got, file) {
		t.Errorf("the QR code says:\n%q\nthe file:\n%q", got, file)
	}
	neverSent(t, s, privateKey(t, s, file))
}

// TestEnrolmentAnswerLost closes the page before the answer comes: opening it again gives it.
func TestEnrolmentAnswerLost(t *testing.T) {
	s := newSite(t)
	b := newTab(t, s, "")
	b.open(s.url + "/enroll#" + fakeToken)
	b.click("#step-app [data-next]")
	b.write("#code", fakeCode)
	b.write("#device", "phone")
	s.set(func(f *fakeService) { f.lose = 1 })
	b.click("#step-code button[type=submit]")
	b.says("#code-error", "could not confirm")
	b.do(chromedp.Reload())
	b.see("[data-config-qr] svg")
	_, file := b.download(func() { b.click("[data-download]") })
	privateKey(t, s, file)
}

// TestEnrolmentEnds says what went wrong and what to do.
func TestEnrolmentEnds(t *testing.T) {
	s := newSite(t)
	b := newTab(t, s, "")
	b.open(s.url + "/enroll")
	b.says("#ended", "This link is incomplete")
	b.value(`location.hash = 'wrong'`) // another link, opened in the same tab
	b.says("#ended", "This link is not known")
	b.says("#ended", "everything after the # sign")
	s.set(func(f *fakeService) { f.used = aKey })
	b.value(`location.hash = "` + fakeToken + `"`)
	b.says("#ended", "This link has been used")
	s.set(func(f *fakeService) {
		f.used, f.fail = "", control.Refuse("invitation_ended", time.Date(2030, 1, 2, 15, 4, 0, 0, time.UTC))
	})
	b.do(chromedp.Reload())
	b.says("#ended", "This invitation ended on 2 January, 15:04 UTC.")
	s.set(func(f *fakeService) { f.fail = control.Refuse("no_leader") })
	b.do(chromedp.Reload())
	b.says("#ended", "No gateway can decide this")
	s.set(func(f *fakeService) { f.fail = nil })
	b.click("#ended [data-again]")
	b.click("#step-app [data-next]")
	s.set(func(f *fakeService) { f.browser = "somebody else's" })
	b.write("#code", fakeCode)
	b.click("#step-code button[type=submit]")
	b.says("#ended", "went on in another browser")
	b.click("#ended [data-again]")
	b.says("#enroll h1", "Hello, alice")
	b.see("img.qr")
}

// TestWithoutCookies: what would not go well later is said at the first step.
func TestWithoutCookies(t *testing.T) {
	s := newSite(t)
	profile := t.TempDir()
	if err := os.Mkdir(filepath.Join(profile, "Default"), 0o700); err != nil {
		t.Fatal(err)
	}
	off := `{"profile": {"default_content_setting_values": {"cookies": 2}}}`
	if err := os.WriteFile(filepath.Join(profile, "Default", "Preferences"), []byte(off), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newTabOf(t, s, "", profile)
	b.open(s.url + "/enroll#" + fakeToken)
	b.says("#ended", "Cookies are switched off")
	b.see("#ended [data-again]")
	if sent := s.sent(); strings.Contains(sent, "/api/v1/enroll/begin") {
		t.Error("the invitation was begun all the same")
	}
}

// TestEnrolmentByKeyboard uses nothing but the keys, and sees where it is at each stop.
func TestEnrolmentByKeyboard(t *testing.T) {
	s := newSite(t)
	b := newTab(t, s, "")
	b.open(s.url + "/enroll#" + fakeToken)
	b.see("#step-app [data-next]")
	b.tabTo("#step-app [data-copy]")
	b.tabTo("#step-app [data-next]")
	b.keys(kb.Enter)
	b.wait(`document.activeElement.id === 'code'`)
	b.keys("000000" + kb.Enter)
	b.says("#code-error", "not right")
	b.wait(`document.activeElement.id === 'code'`) // and its digits are selected: typing replaces them
	b.keys(fakeCode)
	b.tabTo("#device")
	b.keys(kb.Enter)
	b.see("[data-config-qr] svg")
	b.tabTo("[data-download]")
	if _, file := b.download(func() { b.keys(kb.Enter) }); !bytes.Contains(file, []byte("PrivateKey = ")) {
		t.Error("no config")
	}
	b.tabTo("#step-live [data-portal]")
	b.tabTo("#step-live [data-copy]")
	s.set(func(f *fakeService) { f.state = "active" })
	b.says("#all-done", "signed in")
	b.wait(`document.activeElement === document.querySelector('#all-done h2')`)
}

// tabTo presses Tab until it is there, and demands a visible ring on every stop.
func (b *tab) tabTo(selector string) {
	b.t.Helper()
	for range 30 {
		b.keys(kb.Tab)
		state := b.value(fmt.Sprintf(`(() => {
			const e = document.activeElement, c = getComputedStyle(e);
			if (!e.matches(':focus-visible') || c.outlineStyle === 'none' || parseFloat(c.outlineWidth) < 2) return 'unseen: ' + e.outerHTML;
			return e === document.querySelector(%q) ? 'there' : 'elsewhere';
		})()`, selector))
		switch {
		case state == "there":
			return
		case state != "elsewhere" && !strings.Contains(state, "<body"):
			b.t.Errorf("focus cannot be seen, %s", state)
		}
	}
	b.t.Fatalf("Tab does not lead to %s", selector)
}

// TestTunnelNames: the browser names files as vpnctl does.
func TestTunnelNames(t *testing.T) {
	s := newSite(t)
	b := newTab(t, s, "")
	b.open(s.url + "/")
	for _, n := range [][2]string{{"alice", "laptop"}, {"alice@example.org", "phone"}, {"bartholomew", "work-laptop"},
		{"a", "x"}, {"a", strings.Repeat("d", 32)}, {"bartholomew", "a-.-.-.-.-.-"}, {"abcdefgh", "12345-890"}} {
		got := get(b, chromedp.Evaluate[string](fmt.Sprintf(`import(%q).then((m) => m.tunnelName(%q))`,
			assets.prefix+"config.js", n[0]+"/"+n[1]), chromedp.EvalAwaitPromise))
		if want := conf.TunnelName(n[0], n[1]); got != want {
			t.Errorf("%s/%s: %q, want %q", n[0], n[1], got, want)
		}
	}
}
