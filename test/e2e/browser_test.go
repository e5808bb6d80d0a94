package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// A person with nothing but a link, a browser, an authenticator and the stock WireGuard
// tools: enrolment, QR code, tunnel, sign-in, the app, the end of the session.
func TestBrowser(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.web("80")
		w.startVpnd()
		w.startApp()
		w.policy(rulesPolicy)
		var added struct {
			Invitation struct{ Link string } `json:"invitation"`
		}
		w.vpnctlJSON(&added, "user", "add", "alice")
		link := added.Invitation.Link
		alice := &client{host: w.public("phone"), w: w, user: "alice", device: "phone"}
		b := alice.chromium(w.plane)
		page := b.tab()

		key := alice.enrolInBrowser(page, link)
		alice.signInInBrowser(b, page)
		alice.dropInBrowser(b)
		alice.expireInBrowser(b)

		sent := b.close()
		public := base64.StdEncoding.EncodeToString(publicKey(t, key))
		if !strings.Contains(sent, `"public_key":"`+public+`"`) {
			t.Fatalf("not even the public key was sent: what chromium sent was not recorded (%d bytes)", len(sent))
		}
		for _, s := range spellings(key) {
			if strings.Contains(sent, s) {
				t.Errorf("chromium sent the private key, as %q", s)
			}
		}
		_, token, _ := strings.Cut(link, "#")
		for line := range strings.Lines(sent) {
			if strings.Contains(line, token) && !strings.Contains(line, `"token":"`+token) {
				t.Errorf("the invitation's token is in a request's line or headers: %s", line)
			}
		}
	})
}

// enrolInBrowser goes from the link to a tunnel that is up, and gives the private key.
func (c *client) enrolInBrowser(p *tab, link string) []byte {
	t := c.t
	p.open(link)
	p.says("#enroll h1", "Hello, alice")
	p.shot("1-authenticator")
	c.secret = strings.Join(strings.Fields(p.value(`document.querySelector('[data-totp-secret]').textContent`)), "")
	if otpauth := string(p.scan("img.qr")); !strings.Contains(otpauth, "secret="+c.secret) || !strings.HasPrefix(otpauth, "otpauth://totp/") {
		t.Errorf("the authenticator's QR code says %q", otpauth)
	}
	p.click("#step-app [data-next]")
	p.write("#code", "000000")
	p.write("#device", c.device)
	p.shot("2-code")
	p.write("#code", c.code())
	p.click("#step-code button[type=submit]")
	p.see("[data-config-qr] svg")
	name, file := p.download(func() { p.click("[data-download]") })
	if name != "alice-phone.conf" {
		t.Errorf("the config file is called %q", name)
	}
	if got := p.scan("[data-config-qr]"); !bytes.Equal(got, file) {
		t.Errorf("the QR code says\n%q\nand the file\n%q", got, file)
	}
	p.see(".live[data-state=waiting]")
	p.shot("3-tunnel")

	c.setConf(string(file))
	c.up()
	p.see(".live[data-state=connected]")
	p.shot("4-connected")

	_, line, _ := strings.Cut(string(file), "PrivateKey = ")
	line, _, _ = strings.Cut(line, "\n")
	key, err := base64.StdEncoding.DecodeString(line)
	if err != nil || len(key) != 32 {
		t.Fatalf("the private key in the file is %q: %v", line, err)
	}
	return key
}

// signInInBrowser opens addresses in the tunnel, gives a code and is taken on.
func (c *client) signInInBrowser(b *chromium, enrolment *tab) {
	p := b.tab()
	p.open("http://" + lan4 + "/wherever?x=1")
	p.says("h1", "Sign in")
	if got := p.value("location.origin"); got != "http://"+tunnel4 {
		c.t.Errorf("an address in the private network leads to %s", got)
	}
	p.open(app + "/?from=here")
	p.says("h1", "Sign in")
	p.see("#session[data-state=required]")
	p.shot("5-sign-in")
	p.write("#code", c.code())
	p.click("#signin button")
	p.see("#drop")
	if got := p.value("location.href"); got != app+"/?from=here" {
		c.t.Errorf("after signing in the browser is at %s", got)
	}
	enrolment.says("#all-done", "signed in")
	enrolment.shot("6-done")

	p.open("http://" + tunnel4 + "/")
	p.see("#session[data-state=active]")
	p.says("[data-countdown]", "11:5")
	p.shot("7-session")
	p.open("http://" + lan4 + "/")
	p.says("body", "resource to ")
}

// dropInBrowser uses the app as a person would.
func (c *client) dropInBrowser(b *chromium) {
	t := c.t
	p := b.tab()
	p.open(app + "/")
	p.see("#drop")
	p.says("header", "alice")
	p.see("#empty")
	p.shot("app-1-empty")

	// 6 MiB at 3 MiB/s, so that the progress can be seen.
	content := make([]byte, 6<<20)
	for i := range content {
		content[i] = byte(i >> 8)
	}
	file := filepath.Join(t.TempDir(), "Quarterly report, final (2).pdf")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	p.slowUpload(3 << 20)
	p.do(chromedp.SetUploadFiles(chromedp.CSS("#pick"), []string{file}))
	p.wait(`/[1-9]\d? ?%/.test(document.querySelector('#uploads').innerText)`)
	p.shot("app-2-uploading")
	p.says("#files", "Quarterly report, final (2).pdf")
	p.slowUpload(-1)
	p.says("#files", "6 MiB")
	p.says("#files", "you")

	small := filepath.Join(t.TempDir(), "notes-with-a-very-long-name-that-nobody-would-type-but-somebody-will-"+strings.Repeat("x", 60)+".txt")
	if err := os.WriteFile(small, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.do(chromedp.SetUploadFiles(chromedp.CSS("#pick"), []string{small}))
	p.says("#files", "5 B")
	p.shot("app-3-list")

	_, got := p.download(func() { p.click(`#files li:last-child a[download]`) })
	if sha256.Sum256(got) != sha256.Sum256(content) {
		t.Errorf("what is downloaded (%d bytes) is not what was uploaded", len(got))
	}

	p.click(`#files li:last-child button`)
	p.see("#sure[open]")
	p.shot("app-4-sure")
	p.click("#sure button[value=yes]")
	p.wait(`!document.querySelector('#files').innerText.includes('Quarterly')`)
	if _, body, _, err := c.get(app + "/api/files"); err != nil || strings.Contains(body, "Quarterly") || !strings.Contains(body, "notes-with") {
		t.Errorf("after deleting, the list is %q %v", body, err)
	}
}

// expireInBrowser signs in for 20 seconds and sees the end of it.
func (c *client) expireInBrowser(b *chromium) {
	t := c.t
	c.w.vpnctl("settings", "set", "--session", "20s")
	p := b.tab()
	p.open("http://" + tunnel4 + "/")
	p.click("#signout")
	p.see("#session[data-state=required]")
	p.write("#code", c.code())
	p.click("#signin button")
	p.see("#session[data-state=active]")
	start := time.Now()
	drop := b.tab()
	drop.open(app + "/")
	drop.see("#drop")
	drop.wait(`/\d+ s/.test(document.querySelector('#left').innerText)`)
	flow := mustStream(t, c.host, "tcp", lan4+":7000")

	p.see("#session[data-state=required]")
	p.says("h1", "Sign in")
	if took := time.Since(start); took > 30*time.Second*slow {
		t.Errorf("the page said signed in for %v with a session of 20 s", took)
	}
	drop.see("#ended")
	drop.shot("app-5-ended")
	if drop.value(`document.querySelector('#ended a').href`) != "http://"+tunnel4+"/?next="+"http%3A%2F%2F"+tunnel4+"%3A8080%2F" {
		t.Errorf("the app's way back to the sign-in is %s", drop.value(`document.querySelector('#ended a').href`))
	}
	silent(t, flow)
	if status, body, _, err := c.get(app + "/api/whoami"); err == nil && status == 200 {
		t.Errorf("the app after the session's end: %q", body)
	}
	if s, err := openStream(t, c.host, "udp", lan4+":7000"); err == nil {
		t.Errorf("%s opens after the session's end", s.name)
	}
}
