package portal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/httptest"
	neturl "net/url"
	"strings"
	"testing"
)

func TestServerHasLimits(t *testing.T) {
	var log bytes.Buffer
	s := NewServer(http.NotFoundHandler(), slog.New(slog.NewTextHandler(&log, nil)))
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= serviceTimeout || s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 {
		t.Errorf("a limit is missing: %+v", s)
	}
	s.ErrorLog.Printf("http: TLS handshake error from 203.0.113.1:1: EOF")
	s.ErrorLog.Printf("http: Accept error")
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `why="Accept error"`) {
		t.Errorf("logged %q", got)
	}
}

// TestVendoredFiles: what is served is what the README says where it comes from.
func TestVendoredFiles(t *testing.T) {
	readme, err := static.ReadFile("static/vendor/README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for name, a := range assets.files {
		if !strings.HasPrefix(name, "vendor/") {
			continue
		}
		found++
		sum := sha256.Sum256(a.body)
		if !strings.Contains(string(readme), hex.EncodeToString(sum[:])) {
			t.Errorf("the README does not have the sum of %s: %x", name, sum)
		}
	}
	if found != 2 {
		t.Errorf("%d vendored files, want x25519.js and qr.js", found)
	}
}

// TestAssetsNameNobody: no address of others is in a script or style, which a browser
// could fetch.
func TestAssetsNameNobody(t *testing.T) {
	for name, a := range assets.files {
		text := strings.ReplaceAll(string(a.body), "http://www.w3.org/2000/svg", "")
		for _, bad := range []string{"https://", "//cdn", "@import", "innerHTML", "document.write", "eval("} {
			if strings.Contains(text, bad) && !strings.HasPrefix(name, "vendor/") {
				t.Errorf("%s has %q", name, bad)
			}
		}
	}
}

// Port 80 leads to the portal's own URL, whatever was asked for.
func TestToHTTPS(t *testing.T) {
	url := "https://vpn.example.com"
	h := ToHTTPS(func() string { return url })
	for _, c := range []struct {
		method, target, host, want string
		status                     int
	}{
		{"GET", "/enroll", "evil.example", "https://vpn.example.com/enroll", 307},
		{"HEAD", "/", "10.0.0.1", "https://vpn.example.com/", 307},
		{"GET", "http://evil.example/a%0d%0ab?x=1", "evil.example", "https://vpn.example.com/a%0d%0ab", 307},
		{"GET", "//evil.example/", "x", "https://vpn.example.com//evil.example/", 307},
		{"POST", "/enroll", "x", "", 404},
	} {
		r := httptest.NewRequest(c.method, c.target, nil)
		r.Host = c.host
		if strings.HasPrefix(c.target, "//") {
			r.URL = &neturl.URL{Path: c.target}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := w.Header().Get("Location"); w.Code != c.status || got != c.want {
			t.Errorf("%s %s: %d to %q, want %d to %q", c.method, c.target, w.Code, got, c.status, c.want)
		}
	}
	url = ""
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil)); w.Code != 404 {
		t.Errorf("without a URL: %d", w.Code)
	}
}
