package main

import (
	"context"
	"fmt"
	neturl "net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"vpnd/internal/words"
)

// browser is a headless Chromium with one page.
type browser struct {
	context.Context
	t *testing.T
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(),
		chromedp.ExecPath(chromium), chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(time.Minute),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.Env("TZ=UTC"))
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	return &browser{ctx, t}
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b, steps...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) value(expression string) string {
	b.t.Helper()
	v, err := chromedp.Run(b, chromedp.Evaluate[string](expression))
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// says waits until the page shows a text.
func (b *browser) says(text string) {
	b.t.Helper()
	for range 200 {
		if ok, err := chromedp.Run(b, chromedp.Evaluate[bool](fmt.Sprintf(`document.body.innerText.includes(%q)`, text))); err == nil && ok {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.t.Fatalf("the page does not say %q but:\n%s", text, b.value(`document.body.innerText`))
}

// look makes the page a phone's or a desktop's, light or dark, in a language.
func (b *browser) look(phone, dark bool, l *words.Language) {
	b.t.Helper()
	width, scale, scheme := int64(1280), 1.0, "light"
	if phone {
		width, scale = 390, 2
	}
	if dark {
		scheme = "dark"
	}
	_, err := chromedp.Call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: 844, DeviceScaleFactor: scale, Mobile: phone})
	if err == nil {
		_, err = chromedp.Call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	}
	if err == nil {
		_, err = chromedp.Call(b, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{UserAgent: "Mozilla/5.0 Chrome/156.0.0.0", AcceptLanguage: l.Code})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// TestPageInEveryLanguage visits the app's page in every language, on a phone and a desktop,
// light and dark; VPND_SCREENSHOTS names a folder for the pictures.
func TestPageInEveryLanguage(t *testing.T) {
	url, _, who := start(t, 1<<20, 10<<20)
	for _, name := range []string{"Protokoll der Sitzung vom 12. November.pdf", "plan.svg"} {
		if status, body := do(t, "POST", url+"/api/files?name="+neturl.QueryEscape(name), strings.NewReader(strings.Repeat("x", 1600))); status != 201 {
			t.Fatalf("upload: %d %s", status, body)
		}
	}
	b := newBrowser(t)
	for _, l := range words.All() {
		for _, phone := range []bool{true, false} {
			for _, dark := range []bool{true, false} {
				who.set(signedIn("alice"), nil)
				b.look(phone, dark, l)
				b.do(chromedp.Navigate(url + "/"))
				b.says(l.Text("app.heading"))
				b.says(l.Size(1600) + " · " + l.Text("drop.you"))
				if wide := b.value(`document.documentElement.scrollWidth > innerWidth ? 'wide' : ''`); wide != "" {
					t.Errorf("in %s the page is too wide (phone %v)", l.Name(), phone)
				}
				if lang := b.value(`document.documentElement.lang`); lang != l.Code {
					t.Errorf("the page says it is in %q, not %q", lang, l.Code)
				}
				b.shot(fmt.Sprintf("app-%s-phone%v-dark%v", l.Code, phone, dark))
			}
		}
		b.do(chromedp.Click(chromedp.CSS(".files button")))
		b.says(l.Text("app.keep"))
		b.shot("app-" + l.Code + "-sure")
		who.set(caller{}, nil) // the session has ended
		b.do(chromedp.Click(chromedp.CSS("button[value=yes]")))
		b.says(l.Text("app.ended"))
		b.shot("app-" + l.Code + "-ended")
	}

	// What a person chose stays, whatever the browser prefers.
	who.set(signedIn("alice"), nil)
	b.look(false, false, words.English())
	b.do(chromedp.Navigate(url + "/"))
	b.do(chromedp.Click(chromedp.CSS(".languages a")))
	b.says(words.For("fr").Text("app.heading"))
	if at := b.value(`location.href`); at != url+"/" {
		t.Errorf("after the choice the address is %s", at)
	}
	b.do(chromedp.Navigate(url + "/"))
	b.says(words.For("fr").Text("app.heading"))
	cookies, err := chromedp.Call(b, network.GetCookies, network.GetCookiesParams{})
	if err != nil || len(cookies.Cookies) != 1 {
		t.Errorf("cookies %+v, %v", cookies, err)
	}
}

func (b *browser) shot(name string) {
	b.t.Helper()
	dir := os.Getenv("VPND_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
