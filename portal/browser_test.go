package portal

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// need finds a program that a test cannot do without.
func need(t *testing.T, names ...string) string {
	t.Helper()
	for _, n := range names {
		if p, err := exec.LookPath(n); err == nil {
			return p
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("none of %v is installed", names)
	}
	t.Skipf("none of %v is installed", names)
	return ""
}

// site is both sides of the portal as a browser sees them. The public side is a TLS
// server; the tunnel is a proxy for plain HTTP, which is what the packet filter makes of
// it: our addresses lead to the handler, the app's port to the app once signed in, and
// all others to the handler again.
type site struct {
	*fakeService
	url   string // of the public side
	proxy string

	mu       sync.Mutex
	requests []string // everything that was sent, with headers and bodies
	logged   logLines
}

func newSite(t *testing.T) *site {
	s := &site{fakeService: newFake()}
	c := Config{Service: s.fakeService, URL: func() string { return s.url }, Tunnel: []netip.Addr{tunnel4, tunnel6}, AppPort: 8080,
		Log: s.logged.log()}
	outside := httptest.NewTLSServer(s.capture(Public(c)))
	t.Cleanup(outside.Close)
	s.url = outside.URL
	side := Tunnel(c)
	inside := httptest.NewServer(s.capture(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Scheme, r.URL.Host, r.RemoteAddr = "", "", "10.77.0.2:40000"
		s.fakeService.mu.Lock()
		active := s.active
		s.fakeService.mu.Unlock()
		if active && r.Host == "10.77.0.1:8080" {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, "<!doctype html><title>app</title><link rel=icon href=data:,><h1 id=app>the app at %s</h1>", r.URL.RequestURI())
			return
		}
		side.ServeHTTP(w, r)
	})))
	t.Cleanup(inside.Close)
	s.proxy = strings.TrimPrefix(inside.URL, "http://")
	return s
}

func (s *site) capture(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(b))
		s.mu.Lock()
		s.requests = append(s.requests, fmt.Sprintf("%s %s %s\n%v\n%s", r.Method, r.Host, r.RequestURI, r.Header, b))
		s.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

func (s *site) sent() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.requests, "\n\n")
}

// tab is a page of a fresh headless Chromium, and what went wrong in it.
type tab struct {
	context.Context
	t    *testing.T
	site *site

	mu       sync.Mutex
	troubles []string
	fetched  []string
	refused  bool // a page of an error is meant
}

// newTab starts a browser. inject runs before any script of a page.
func newTab(t *testing.T, s *site, inject string) *tab {
	t.Helper()
	return newTabOf(t, s, inject, t.TempDir())
}

// newTabOf starts a browser with a profile.
func newTabOf(t *testing.T, s *site, inject, profile string) *tab {
	t.Helper()
	chromium := need(t, "chromium", "chromium-browser", "google-chrome")
	opts := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(chromium), chromedp.UserDataDir(profile), chromedp.WSURLReadTimeout(time.Minute),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-extensions", true), chromedp.Flag("hide-scrollbars", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("ignore-certificate-errors", true), chromedp.Flag("lang", "en-GB"),
		chromedp.Flag("proxy-server", "http="+s.proxy), chromedp.Env("TZ=UTC"),
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(cancel)
	b := &tab{Context: ctx, t: t, site: s}
	if err := chromedp.Listen(ctx, b.event); err != nil {
		t.Fatalf("starting %s: %v", chromium, err)
	}
	watch := `addEventListener('securitypolicyviolation', (e) => console.error('CSP: ' + e.violatedDirective + ' ' + e.blockedURI));`
	call(b, network.Enable, network.EnableParams{})
	call(b, cdplog.Enable, cdp.Empty{})
	call(b, runtime.Enable, cdp.Empty{})
	call(b, page.Enable, page.EnableParams{})
	call(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: watch + inject})
	t.Cleanup(b.check)
	b.screen(false, false)
	return b
}

func (b *tab) event(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := ev.(type) {
	case *network.EventRequestWillBeSent:
		b.fetched = append(b.fetched, e.Request.URL)
	case *runtime.EventExceptionThrown:
		b.troubles = append(b.troubles, fmt.Sprintf("exception: %s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			b.troubles = append(b.troubles, fmt.Sprintf("console: %s %s", e.Type, e.Args[0].Value))
		}
	case *cdplog.EventEntryAdded:
		// Chromium notes every refused API call here; those are meant.
		if e.Entry.Source == cdplog.EntrySourceNetwork && (b.refused || strings.Contains(e.Entry.URL, "/api/v1/")) {
			return
		}
		if e.Entry.Level == cdplog.EntryLevelError || e.Entry.Level == cdplog.EntryLevelWarning {
			b.troubles = append(b.troubles, fmt.Sprintf("log: %s %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	}
}

// check is what holds for every page of every test: no error, no violation of the content
// security policy, and no request to anybody else.
func (b *tab) check() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.troubles {
		b.t.Errorf("in the browser: %s", s)
	}
	for _, f := range b.fetched {
		u, err := url.Parse(f)
		if err != nil {
			b.t.Errorf("fetched %q", f)
			continue
		}
		own := "https://" + u.Host
		if u.Scheme == "data" || u.Scheme == "blob" || own == b.site.url || slices.Contains([]string{"10.77.0.1", "10.77.0.1:8080", "example.com"}, u.Host) {
			continue
		}
		b.t.Errorf("a third party was asked for %s", f)
	}
}

// call sends a command of the DevTools protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	r, err := chromedp.Call(b, command, params)
	if err != nil {
		b.fail(err)
	}
	return r
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b, steps...); err != nil {
		b.fail(err)
	}
}

// get runs an action that gives something.
func get[T any](b *tab, a chromedp.Action[T]) T {
	b.t.Helper()
	v, err := chromedp.Run(b, a)
	if err != nil {
		b.fail(err)
	}
	return v
}

// fail ends the test with what the page shows.
func (b *tab) fail(err error) {
	b.t.Helper()
	text, _ := chromedp.Run(b, chromedp.Evaluate[string](`document.body.innerText`))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.t.Fatalf("browser: %v\ntroubles: %q\nthe page says:\n%s", err, b.troubles, text)
}

func (b *tab) open(address string) {
	b.t.Helper()
	b.do(chromedp.Navigate(address))
}

// see waits until an element is visible.
func (b *tab) see(selector string) {
	b.t.Helper()
	b.wait(fmt.Sprintf(`(() => { const e = document.querySelector(%q); return !!e && e.checkVisibility(); })()`, selector))
}

// says waits until an element's visible text has words in it; a no-break space is a space.
func (b *tab) says(selector, words string) {
	b.t.Helper()
	words = strings.ReplaceAll(words, "\u00a0", " ")
	b.wait(fmt.Sprintf(`(() => { const e = document.querySelector(%q); return !!e && e.checkVisibility() && e.innerText.replaceAll('\u00a0', ' ').includes(%q); })()`, selector, words))
}

func (b *tab) wait(expression string) {
	b.t.Helper()
	for range 600 {
		if ok, err := chromedp.Run(b, chromedp.Evaluate[bool](expression)); err == nil && ok {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.fail(fmt.Errorf("waited in vain for %s", expression))
}

func (b *tab) value(expression string) string {
	b.t.Helper()
	return get(b, chromedp.Evaluate[string](expression))
}

func (b *tab) click(selector string) {
	b.t.Helper()
	b.see(selector)
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

func (b *tab) keys(keys string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys))
}

// write fills a field as a person does.
func (b *tab) write(selector, text string) {
	b.t.Helper()
	b.see(selector)
	b.value(fmt.Sprintf(`document.querySelector(%q).select(), ''`, selector))
	b.do(chromedp.SendKeys(chromedp.CSS(selector), text))
}

// screen makes the page a phone's or a desktop's, light or dark.
func (b *tab) screen(phone, dark bool) {
	b.t.Helper()
	width, height, scale, scheme := int64(1280), int64(900), 1.0, "light"
	if phone {
		width, height, scale = 390, 844, 2
	}
	if dark {
		scheme = "dark"
	}
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: scale, Mobile: phone})
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
}
