package e2e

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdpnet "github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// chromium is a headless Chromium that runs in a host's network namespace. Everything
// that it sends goes into a log of its own, with TLS taken off.
type chromium struct {
	t      *testing.T
	ctx    context.Context
	cancel context.CancelFunc
	netlog string
	shots  string // prefix of the pictures' names
}

// tab is a page of it.
type tab struct {
	context.Context
	b *chromium
	t *testing.T

	mu       sync.Mutex
	troubles []string
}

func (c *client) chromium(shots string) *chromium {
	c.t.Helper()
	dir := c.t.TempDir()
	b := &chromium{t: c.t, netlog: filepath.Join(dir, "net.json"), shots: shots}
	opts := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath("ip"), chromedp.UserDataDir(filepath.Join(dir, "profile")),
		chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) {
			cmd.Args = append([]string{"ip", "netns", "exec", c.name, "chromium"}, cmd.Args[1:]...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		}),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-extensions", true), chromedp.Flag("hide-scrollbars", true), chromedp.Flag("disable-dev-shm-usage", true),
		// The own CA's fingerprint, which a person compares, is no browser's business here.
		chromedp.Flag("ignore-certificate-errors", true),
		chromedp.Flag("lang", "en-GB"), chromedp.Env("TZ=UTC", "HOME="+dir),
		chromedp.Flag("log-net-log", b.netlog), chromedp.Flag("net-log-capture-mode", "Everything"),
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
	c.t.Cleanup(cancel)
	ctx, cancel2 := context.WithTimeout(ctx, 4*time.Minute)
	c.t.Cleanup(cancel2)
	b.ctx, b.cancel = chromedp.NewContext(ctx)
	c.t.Cleanup(b.cancel)
	if _, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`''`)); err != nil {
		c.t.Fatalf("starting chromium in %s: %v", c.name, err)
	}
	return b
}

// close ends the browser and gives all that it has sent.
func (b *chromium) close() string {
	b.t.Helper()
	if err := chromedp.Cancel(b.ctx); err != nil {
		b.t.Fatalf("closing chromium: %v", err)
	}
	f, err := os.Open(b.netlog)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	// One event a line. Those with bytes are what a socket has sent or received, before
	// TLS and after it; a text that spans two writes is still whole, by source.
	streams := map[int][]byte{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e struct {
			Params struct{ Bytes, Headers any }
			Source struct{ ID int }
		}
		text := strings.TrimSuffix(strings.TrimSpace(lines.Text()), ",")
		if !strings.HasPrefix(text, `{"params"`) || json.Unmarshal([]byte(text), &e) != nil {
			continue
		}
		if s, ok := e.Params.Bytes.(string); ok {
			if raw, err := base64.StdEncoding.DecodeString(s); err == nil {
				streams[e.Source.ID] = append(streams[e.Source.ID], raw...)
			}
		}
		if e.Params.Headers != nil {
			streams[e.Source.ID] = append(streams[e.Source.ID], text+"\n"...)
		}
	}
	if err := lines.Err(); err != nil {
		b.t.Fatal(err)
	}
	var all strings.Builder
	for _, s := range streams {
		all.Write(s)
		all.WriteByte('\n')
	}
	return all.String()
}

// spellings are the ways in which a key could be written.
func spellings(key []byte) []string {
	b64 := base64.StdEncoding.EncodeToString(key)
	return []string{b64, base64.RawURLEncoding.EncodeToString(key), hex.EncodeToString(key), string(key), b64[:20],
		strings.Join(strings.Fields(strings.Trim(fmt.Sprint(key), "[]")), ",")}
}

// tab opens a new one.
func (b *chromium) tab() *tab {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	p := &tab{Context: ctx, b: b, t: b.t}
	if err := chromedp.Listen(ctx, p.event); err != nil {
		b.t.Fatalf("opening a tab: %v", err)
	}
	call(p, cdpnet.Enable, cdpnet.EnableParams{})
	call(p, runtime.Enable, cdp.Empty{})
	p.screen(false, false)
	b.t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, s := range p.troubles {
			b.t.Errorf("in the browser: %s", s)
		}
	})
	return p
}

func (p *tab) event(ev any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := ev.(type) {
	case *runtime.EventExceptionThrown:
		p.troubles = append(p.troubles, fmt.Sprintf("exception: %s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError {
			p.troubles = append(p.troubles, fmt.Sprintf("console: %s", e.Args[0].Value))
		}
	}
}

// call sends a command of the DevTools protocol.
func call[P, R any](p *tab, command cdp.Command[P, R], params P) R {
	p.t.Helper()
	r, err := chromedp.Call(p, command, params)
	if err != nil {
		p.fail(err)
	}
	return r
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p, steps...); err != nil {
		p.fail(err)
	}
}

func get[T any](p *tab, a chromedp.Action[T]) T {
	p.t.Helper()
	v, err := chromedp.Run(p, a)
	if err != nil {
		p.fail(err)
	}
	return v
}

// fail ends the test with what the page shows.
func (p *tab) fail(err error) {
	p.t.Helper()
	text, _ := chromedp.Run(p, chromedp.Evaluate[string](`location.href + '\n' + document.body.innerText`))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.t.Fatalf("browser: %v\ntroubles: %q\nthe page says:\n%s", err, p.troubles, text)
}

// networkChanged are the errors of a load whose connection was dropped with the old address.
var networkChanged = regexp.MustCompile(`ERR_NETWORK_CHANGED|ERR_SOCKET_NOT_CONNECTED`)

func (p *tab) open(address string) {
	p.t.Helper()
	// Chromium drops what is under way when it notices a new address; a person reloads.
	for range 5 {
		err := chromedp.Do(p, chromedp.Navigate(address))
		if err == nil {
			return
		}
		if !networkChanged.MatchString(err.Error()) {
			p.fail(err)
		}
		time.Sleep(300 * time.Millisecond)
	}
	p.fail(fmt.Errorf("opening %s: the network never rests", address))
}

func (p *tab) value(expression string) string {
	p.t.Helper()
	return get(p, chromedp.Evaluate[string](expression))
}

func (p *tab) wait(expression string) {
	p.t.Helper()
	for end := time.Now().Add(45 * time.Second * slow); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ok, err := chromedp.Run(p, chromedp.Evaluate[bool](expression)); err == nil && ok {
			return
		}
	}
	p.fail(fmt.Errorf("waited in vain for %s", expression))
}

// see waits until an element is visible.
func (p *tab) see(selector string) {
	p.t.Helper()
	p.wait(fmt.Sprintf(`(() => { const e = document.querySelector(%q); return !!e && e.checkVisibility(); })()`, selector))
}

// says waits until an element's visible text has words in it.
func (p *tab) says(selector, words string) {
	p.t.Helper()
	p.wait(fmt.Sprintf(`(() => { const e = document.querySelector(%q); return !!e && e.checkVisibility() && e.innerText.includes(%q); })()`, selector, words))
}

func (p *tab) click(selector string) {
	p.t.Helper()
	p.see(selector)
	p.do(chromedp.Click(chromedp.CSS(selector)))
}

// write fills a field as a person does.
func (p *tab) write(selector, text string) {
	p.t.Helper()
	p.see(selector)
	p.value(fmt.Sprintf(`document.querySelector(%q).select(), ''`, selector))
	p.do(chromedp.SendKeys(chromedp.CSS(selector), text))
}

// download does what brings a file, and gives its name and bytes.
func (p *tab) download(press func()) (string, []byte) {
	p.t.Helper()
	dir := p.t.TempDir()
	call(p, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: dir})
	press()
	for end := time.Now().Add(20 * time.Second * slow); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		fs, err := os.ReadDir(dir)
		if err != nil {
			p.t.Fatal(err)
		}
		if len(fs) == 1 && !strings.HasSuffix(fs[0].Name(), ".crdownload") {
			if b, err := os.ReadFile(filepath.Join(dir, fs[0].Name())); err == nil && len(b) > 0 {
				return fs[0].Name(), b
			}
		}
	}
	p.fail(fmt.Errorf("no file was downloaded"))
	return "", nil
}

// scan reads a QR code of the page from a picture of it, as a camera would.
func (p *tab) scan(selector string) []byte {
	p.t.Helper()
	file := filepath.Join(p.t.TempDir(), "qr.png")
	if err := os.WriteFile(file, get(p, chromedp.ScreenshotScale(chromedp.CSS(selector), 3)), 0o600); err != nil {
		p.t.Fatal(err)
	}
	out, err := exec.Command("zbarimg", "-q", "--raw", "-Sbinary", "--oneshot", file).Output()
	if err != nil {
		p.t.Fatalf("zbarimg of %s: %v", selector, err)
	}
	return out
}

// screen makes the page a phone's (390 by 844) or a desktop's (1280 by 900), light or dark.
func (p *tab) screen(phone, dark bool) {
	p.t.Helper()
	width, height, scale, scheme := int64(1280), int64(900), 1.0, "light"
	if phone {
		width, height, scale = 390, 844, 2
	}
	if dark {
		scheme = "dark"
	}
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: scale, Mobile: phone})
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
}

// shot keeps pictures of the page as it is now, and fails for one that is wider than its screen.
func (p *tab) shot(name string) {
	p.t.Helper()
	if err := os.MkdirAll("out", 0o755); err != nil {
		p.t.Fatal(err)
	}
	for _, s := range []struct {
		name        string
		phone, dark bool
	}{{"phone-light", true, false}, {"phone-dark", true, true}, {"desktop-dark", false, true}, {"desktop-light", false, false}} {
		p.screen(s.phone, s.dark)
		if wide := p.value(`document.documentElement.scrollWidth > innerWidth ? 'wide' : ''`); wide != "" {
			p.t.Errorf("%s is wider than its screen, %s", name, s.name)
		}
		file := filepath.Join("out", fmt.Sprintf("%s-%s-%s.png", p.b.shots, name, s.name))
		if err := os.WriteFile(file, get(p, chromedp.FullScreenshot(100)), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
}

// publicKey is what belongs to a private key.
func publicKey(t *testing.T, key []byte) []byte {
	t.Helper()
	k, err := ecdh.X25519().NewPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return k.PublicKey().Bytes()
}

// slowUpload bounds what the page sends, in bytes per second; -1 takes the bound away.
func (p *tab) slowUpload(rate float64) {
	p.t.Helper()
	call(p, cdpnet.EmulateNetworkConditionsByRule, cdpnet.EmulateNetworkConditionsByRuleParams{
		MatchedNetworkConditions: []*cdpnet.Conditions{{UploadThroughput: rate, DownloadThroughput: -1}}})
}
