package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	neturl "net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// directory is a whois whose answers a test decides.
type directory struct {
	mu  sync.Mutex
	c   caller
	err error
}

func (d *directory) ask(_ context.Context, a netip.Addr) (caller, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.c
	c.Address = a
	return c, d.err
}

func (d *directory) set(c caller, err error) {
	d.mu.Lock()
	d.c, d.err = c, err
	d.mu.Unlock()
}

func signedIn(user string) caller {
	return caller{User: user, Device: "phone", Expires: time.Now().Add(time.Hour)}
}

func start(t *testing.T, maxFile, quota int64) (url, dir string, who *directory) {
	t.Helper()
	dir = t.TempDir()
	d, err := openDrop(dir, maxFile, quota)
	if err != nil {
		t.Fatal(err)
	}
	who = &directory{c: signedIn("alice")}
	s := httptest.NewServer(newHandler(d, who, maxFile, slog.New(slog.NewTextHandler(t.Output(), nil))))
	t.Cleanup(s.Close)
	return s.URL, dir, who
}

// do sends a request and gives status and body.
func do(t *testing.T, method, url string, body io.Reader, headers ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b) + resp.Header.Get("Location")
}

func TestUploadListDownloadDelete(t *testing.T) {
	url, dir, who := start(t, 1<<20, 1<<20)
	status, body := do(t, "POST", url+"/api/files?name=plan%20%C3%A9.txt", strings.NewReader("hello"))
	if status != 201 {
		t.Fatalf("upload: %d %s", status, body)
	}
	var f entry
	if err := json.Unmarshal([]byte(body), &f); err != nil || f.Name != "plan é.txt" || f.Size != 5 || f.By != "alice" || !f.Mine {
		t.Fatalf("upload answered %s (%v)", body, err)
	}
	if status, body = do(t, "GET", url+"/api/files/"+f.ID, nil); status != 200 || body != "hello" {
		t.Errorf("download: %d %q", status, body)
	}
	who.set(signedIn("bob"), nil)
	if status, body = do(t, "DELETE", url+"/api/files/"+f.ID, nil); status != 403 || !strings.Contains(body, "not_yours") {
		t.Errorf("bob deletes alice's file: %d %s", status, body)
	}
	if _, body = do(t, "GET", url+"/api/files", nil); !strings.Contains(body, `"mine":false`) {
		t.Errorf("bob's list: %s", body)
	}
	reopened, err := openDrop(dir, 1<<20, 1<<20)
	if err != nil || len(reopened.list()) != 1 || reopened.used != 5 {
		t.Errorf("after a restart: %v, %v", reopened, err)
	}
	who.set(signedIn("alice"), nil)
	if status, _ = do(t, "DELETE", url+"/api/files/"+f.ID, nil); status != 204 {
		t.Errorf("alice deletes her file: %d", status)
	}
	if status, _ = do(t, "GET", url+"/api/files/"+f.ID, nil); status != 404 {
		t.Errorf("download after deletion: %d", status)
	}
}

// Names as people's own file systems hold them.
func TestNames(t *testing.T) {
	url, _, _ := start(t, 10, 1000)
	for _, name := range []string{
		"\U0001F468\u200d\U0001F469\u200d\U0001F467.jpg",       // a family of three, with U+200D
		"\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.pdf", // Persian, with U+200C
		"\u200e\u05d3\u05d5\u05d7.pdf",                         // Hebrew, with U+200E
		"\u061c\u0645.pdf", "\u200f\u05d3",                     // marks of Arabic and Hebrew
		strings.Repeat("漢", 83) + ".pdf", // 253 bytes
		strings.Repeat("a", 255), "\ue000", "한글", "…",
	} {
		status, body := do(t, "POST", url+"/api/files?name="+neturl.QueryEscape(name), strings.NewReader("x"))
		var f entry
		if err := json.Unmarshal([]byte(body), &f); status != 201 || err != nil || f.Name != name {
			t.Errorf("%q: %d %s", name, status, body)
			continue
		}
		resp, err := http.Get(url + "/api/files/" + f.ID)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if _, params, err := mime.ParseMediaType(resp.Header.Get("Content-Disposition")); err != nil || params["filename"] != name {
			t.Errorf("%q comes back as %q (%v)", name, params["filename"], err)
		}
	}
}

// A disk that is full is not the quota: it says so, and keeps nothing.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("mounting a small file system needs root")
		}
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	d, err := openDrop(dir, 4<<20, 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(newHandler(d, &directory{c: signedIn("alice")}, 4<<20, slog.New(slog.NewTextHandler(t.Output(), nil))))
	defer s.Close()
	status, body := do(t, "POST", s.URL+"/api/files?name=big", bytes.NewReader(make([]byte, 2<<20)))
	if status != 507 || !strings.Contains(body, "disk_full") {
		t.Errorf("on a full disk: %d %s", status, body)
	}
	if status, body = do(t, "POST", s.URL+"/api/files?name=small", strings.NewReader("x")); status != 201 {
		t.Errorf("afterwards a small one: %d %s", status, body)
	}
	if d.used != 1 {
		t.Errorf("the quota counts %d bytes, 1 is kept", d.used)
	}
}

func TestRefusals(t *testing.T) {
	url, dir, who := start(t, 10, 15)
	host := strings.TrimPrefix(url, "http://")
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		has                      string
	}{
		{"too large", "POST", "/api/files?name=a", "12345678901", nil, 413, "10 B"},
		{"no name", "POST", "/api/files", "x", nil, 400, "bad_name"},
		{"path for a name", "POST", "/api/files?name=..%2Fx", "x", nil, 400, "bad_name"},
		{"newline in a name", "POST", "/api/files?name=a%0Ab", "x", nil, 400, "bad_name"},
		{"isolate", "POST", "/api/files?name=a%E2%81%A6b", "x", nil, 400, "bad_name"},
		{"line separator", "POST", "/api/files?name=a%E2%80%A8b", "x", nil, 400, "bad_name"},
		{"256 bytes", "POST", "/api/files?name=" + strings.Repeat("a", 256), "x", nil, 400, "bad_name"},
		{"no such page", "GET", "/elsewhere", "", nil, 404, "no_page"},
		{"no such page, in a browser", "GET", "/elsewhere", "", []string{"Accept", "text/html,*/*"}, 303, `href="/"`},
		{"right-to-left override", "POST", "/api/files?name=a%E2%80%AEb", "x", nil, 400, "bad_name"},
		{"another site", "POST", "/api/files?name=a", "x", []string{"Origin", "http://evil.example"}, 403, "wrong_origin"},
		{"another site, by fetch metadata", "POST", "/api/files?name=a", "x", []string{"Sec-Fetch-Site", "cross-site"}, 403, "wrong_origin"},
		{"own page", "POST", "/api/files?name=a", "1234567890", []string{"Origin", url, "Sec-Fetch-Site", "same-origin"}, 201, "alice"},
		{"quota", "POST", "/api/files?name=b", "1234567890", nil, 507, "full"},
		{"rebound name", "GET", "/api/files", "", []string{"Host", "app.evil.example"}, 421, "wrong_host"},
		{"other port", "GET", "/api/files", "", []string{"Host", "127.0.0.1:1"}, 421, "wrong_host"},
		{"own host", "GET", "/api/files", "", []string{"Host", host}, 200, "files"},
		{"no such file", "GET", "/api/files/..%2f..%2fetc", "", nil, 404, "not_found"},
	} {
		status, body := do(t, c.method, url+c.path, strings.NewReader(c.body), c.headers...)
		if status != c.status || !strings.Contains(body, c.has) {
			t.Errorf("%s: %d %s; want %d with %q", c.name, status, body, c.status, c.has)
		}
	}
	if left, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(left) != 0 {
		t.Errorf("refused uploads left %v (%v)", left, err)
	}
	who.set(caller{}, errors.New("no vpnd"))
	if status, _ := do(t, "GET", url+"/api/whoami", nil); status != 503 {
		t.Errorf("without vpnd: %d", status)
	}
	who.set(caller{}, errStranger)
	if status, _ := do(t, "GET", url+"/api/whoami", nil); status != 403 {
		t.Errorf("stranger: %d", status)
	}
	who.set(caller{User: "alice", Device: "phone", Expires: time.Now().Add(-time.Second)}, nil)
	for _, path := range []string{"/", "/api/whoami", "/api/files", "/static/"} {
		if status, body := do(t, "GET", url+path, nil); status == 200 {
			t.Errorf("%s without a session: %d %s", path, status, body)
		}
	}
	if status, where := do(t, "GET", url+"/", nil, "Accept", "text/html"); status != 303 || where != "http://127.0.0.1/" && !strings.HasSuffix(where, "http://127.0.0.1/") {
		t.Errorf("a browser without a session: %d %s", status, where)
	}
}

func TestWhoami(t *testing.T) {
	url, _, _ := start(t, 1, 1)
	status, body := do(t, "GET", url+"/api/whoami", nil)
	var got struct {
		User, Device, Address string
		Session               struct {
			Expires time.Time `json:"expires_at"`
		}
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 ||
		got.User != "alice" || got.Device != "phone" || got.Address != "127.0.0.1" || time.Until(got.Session.Expires) < time.Minute {
		t.Errorf("whoami: %d %s", status, body)
	}
}

// A session that is ended while a body comes in ends the upload, even without a filter.
func TestUploadEndsWithItsSession(t *testing.T) {
	d, err := openDrop(t.TempDir(), 1<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	who := &directory{c: signedIn("alice")}
	now := time.Now()
	g := &guard{who: who, addr: netip.MustParseAddr("10.77.0.2"), now: func() time.Time { return now }}
	if err := g.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	body := &guarded{ctx: t.Context(), g: g, r: readerFunc(func(p []byte) (int, error) {
		who.set(caller{}, errStranger)
		now = now.Add(recheck)
		return copy(p, "half"), nil
	})}
	var ref *refusal
	if _, err := d.put("a", "alice", -1, body, now); !errors.As(err, &ref) || ref.code != "stranger" {
		t.Errorf("upload went on: %v", err)
	}
	if len(d.list()) != 0 || d.used != 0 {
		t.Errorf("half a file was kept: %v, %d bytes", d.list(), d.used)
	}
}

// The guard lets a caller in up to the session's end and not at it, to the nanosecond, also
// where it goes by what it was told a moment ago.
func TestGuardAtTheInstant(t *testing.T) {
	end := time.Now().Add(time.Hour)
	for _, asked := range []bool{false, true} {
		for _, c := range []struct {
			at   time.Duration
			live bool
		}{{-time.Nanosecond, true}, {0, false}, {time.Nanosecond, false}} {
			alice := signedIn("alice")
			alice.Expires = end
			now := end.Add(-recheck / 2)
			g := &guard{who: &directory{c: alice}, addr: netip.MustParseAddr("10.77.0.2"), now: func() time.Time { return now }}
			if asked {
				if err := g.check(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			now = end.Add(c.at)
			if err := g.check(t.Context()); (err == nil) != c.live {
				t.Errorf("asked before %v, at the end %+d ns: %v", asked, c.at, err)
			}
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// What a crash leaves in tmp/ is gone after a start, and what is in files/ is whole.
func TestCrashLeavesWholeFiles(t *testing.T) {
	dir := t.TempDir()
	d, err := openDrop(dir, 1<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.put("whole", "alice", 3, strings.NewReader("abc"), time.Now()); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(dir, "tmp", newID())
	if err := errors.Join(os.Mkdir(half, 0o700), os.WriteFile(filepath.Join(half, "content"), []byte("ha"), 0o600)); err != nil {
		t.Fatal(err)
	}
	d, err = openDrop(dir, 1<<20, 1<<20)
	if err != nil || len(d.list()) != 1 || d.list()[0].Name != "whole" {
		t.Fatalf("after a crash: %v, %v", d, err)
	}
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half an upload is still there: %v", err)
	}
}

func TestParallelUploadsKeepTheQuota(t *testing.T) {
	d, err := openDrop(t.TempDir(), 100, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			d.put(fmt.Sprint(i), "alice", -1, bytes.NewReader(make([]byte, 100)), time.Now())
		})
	}
	wg.Wait()
	var sum int64
	for _, m := range d.list() {
		sum += m.Size
	}
	if sum > 1000 || sum != d.used {
		t.Errorf("%d bytes kept, %d counted, of 1000", sum, d.used)
	}
}

func TestRefusesOtherInterfaces(t *testing.T) {
	_, err := listenTunnel(t.Context(), "lo", 0, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err == nil || !strings.Contains(err.Error(), "no tunnel") {
		t.Errorf("lo: %v", err)
	}
	for _, name := range []string{"", "../lo", "a b", "sixteencharacter"} {
		if _, err := listenTunnel(t.Context(), name, 0, slog.New(slog.NewTextHandler(t.Output(), nil))); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// The socket takes who is calling from the PROXY header, and nothing without one.
func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := listenSocket(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := openDrop(t.TempDir(), 10, 10)
	if err != nil {
		t.Fatal(err)
	}
	who := &directory{c: signedIn("alice")}
	s := &http.Server{Handler: newHandler(d, who, 10, slog.New(slog.NewTextHandler(t.Output(), nil)))}
	go s.Serve(l)
	defer s.Close()

	header := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + "\x0a\x4d\x00\x02" + "\x0a\x4d\x00\x01" + "\x30\x39" + "\x1f\x90"
	if got := overSocket(t, path, header+"GET /api/whoami HTTP/1.1\r\nHost: 10.77.0.1:8080\r\nConnection: close\r\n\r\n"); !strings.Contains(got, `"address":"10.77.0.2"`) {
		t.Errorf("with a header: %s", got)
	}
	if got := overSocket(t, path, "GET /api/whoami HTTP/1.1\r\nHost: 10.77.0.1:8080\r\nConnection: close\r\n\r\n"); strings.Contains(got, "alice") {
		t.Errorf("without a header: %s", got)
	}
	if _, err := listenSocket(path, -1); err == nil {
		t.Error("a second listener took the socket")
	}
}

func overSocket(t *testing.T, path, send string) string {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, send); err != nil {
		return err.Error()
	}
	b, _ := io.ReadAll(c) // a refusal may be a reset
	return string(b)
}
