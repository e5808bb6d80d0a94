package portal

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// Request targets that are no clean path: what a router makes of them and what a guard has
// looked at must not be two things. None reaches a use case; all are refused or led away.
func TestTargetsThatAreNoPath(t *testing.T) {
	f := newFake()
	f.browser = "untouched"
	c := Config{Service: f, URL: func() string { return publicURL }, Tunnel: []netip.Addr{tunnel4, tunnel6}, AppPort: 8080, Log: slog.New(slog.DiscardHandler)}
	for _, side := range []struct {
		name, host string
		h          http.Handler
		paths      []string
	}{
		{"public", "vpn.example.org:8443", Public(c), []string{"api/v1/enroll/begin", "api/v1/enroll/finish", "enroll", "foo"}},
		{"tunnel", tunnel4.String(), Tunnel(c), []string{"api/v1/session", "foo", ""}},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := NewServer(side.h, slog.New(slog.NewTextHandler(t.Output(), nil)))
		go s.Serve(l)
		defer s.Close()
		for _, path := range side.paths {
			targets := []string{path, "//" + path, "/./" + path, "/x/../" + path, "http:" + path, "x:" + path, "*", "?" + path, "#" + path, `\` + path, "%2f" + path}
			for _, method := range []string{"GET", "POST", "DELETE", "CONNECT", "OPTIONS"} {
				for _, target := range targets {
					if target == "" {
						target = "*"
					}
					if status := rawAsk(t, l.Addr().String(), method, target, side.host); status < 300 {
						t.Errorf("%s: %s %s is answered %d", side.name, method, target, status)
					}
				}
			}
		}
	}
	if len(f.froms) != 0 || len(f.finishes) != 0 || f.browser != "untouched" {
		t.Errorf("use cases were called: %v, %v, %q", f.froms, f.finishes, f.browser)
	}
}

// rawAsk sends a request with this very target, from a foreign page, and returns the status.
func rawAsk(t *testing.T, addr, method, target, host string) int {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := `{"code":"123456","token":"` + fakeToken + `"}`
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nOrigin: https://evil.example\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		method, target, host, len(body), body)
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	if loc := res.Header.Get("Location"); res.StatusCode >= 300 && res.StatusCode < 400 && strings.Contains(loc, "evil") {
		t.Errorf("%s %s leads to %s", method, target, loc)
	}
	return res.StatusCode
}
