package portal

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// FuzzBodies sends bodies to every endpoint that takes one: the answer is always one of
// ours, and JSON.
func FuzzBodies(f *testing.F) {
	for _, s := range []string{`{"token":"x"}`, finishBody(fakeCode, "phone"), `{"code":"000000"}`, `{}`, `[`, "\x00", `{"token":"\ud800"}`, `{"Token":"x"}`} {
		f.Add(s)
	}
	c := Config{Service: newFake(), URL: func() string { return publicURL }, Tunnel: []netip.Addr{tunnel4}, AppPort: 8080}
	inside := Tunnel(c)
	f.Fuzz(func(t *testing.T, body string) {
		outside := Public(c) // anew: the rate limit is not the subject
		for _, path := range []string{"begin", "finish", "status"} {
			r := ask(outside, "POST", publicURL+"/api/v1/enroll/"+path, body, nil)
			if r.StatusCode >= 500 {
				t.Errorf("%s: %d for %q", path, r.StatusCode, body)
			}
			read(t, r)
		}
		r := askFrom(inside, fromPhone, "POST", "http://10.77.0.1/api/v1/session", body, nil)
		if r.StatusCode >= 500 {
			t.Errorf("session: %d for %q", r.StatusCode, body)
		}
		read(t, r)
	})
}

// FuzzNext looks for an address that gets through and leads elsewhere.
func FuzzNext(f *testing.F) {
	for _, s := range []string{"http://10.77.0.1:8080/x", "http://10.77.0.1:8080@evil/", "//evil", "http://[fd42:7::1]:8080/", `http:\\evil`} {
		f.Add(s)
	}
	side := &tunnel{Config: Config{Tunnel: []netip.Addr{tunnel4, tunnel6}}}
	f.Fuzz(func(t *testing.T, raw string) {
		got := side.next(raw)
		if got == "" {
			return
		}
		u, err := url.Parse(got)
		if err != nil || u.Scheme != "http" || u.User != nil || (u.Hostname() != tunnel4.String() && u.Hostname() != tunnel6.String()) || u.Port() == "" {
			t.Errorf("%q leads to %q", raw, got)
		}
		if strings.ContainsAny(got, "\\\r\n\t \"<>") {
			t.Errorf("%q leads to the unescaped %q", raw, got)
		}
		if _, err := http.NewRequest("GET", got, nil); err != nil {
			t.Errorf("%q leads to %q: %v", raw, got, err)
		}
	})
}
