package portal

import (
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := publicUnderTest(t, newFake())
		begin := func(from string) *http.Response {
			return ask(h, "POST", publicURL+"/api/v1/enroll/begin", `{"token":"x"}`, func(r *http.Request) { r.RemoteAddr = from })
		}
		for i := range publicBurst {
			if r := begin("[2001:db8::1]:9"); r.StatusCode != 404 {
				t.Fatalf("request %d: %d", i, r.StatusCode)
			}
		}
		// The same /64 is the same source; another is not.
		if r := begin("[2001:db8::2]:9"); r.StatusCode != 429 || r.Header.Get("Retry-After") != "1" || errorCode(t, r) != "too_many" {
			t.Errorf("over the rate: %d Retry-After %q", r.StatusCode, r.Header.Get("Retry-After"))
		}
		if r := begin("[2001:db8:0:1::2]:9"); r.StatusCode != 404 {
			t.Errorf("another source: %d", r.StatusCode)
		}
		if r := ask(h, "GET", publicURL+"/enroll", "", func(r *http.Request) { r.RemoteAddr = "[2001:db8::1]:9" }); r.StatusCode != 200 {
			t.Errorf("a page: %d", r.StatusCode)
		}
		time.Sleep(time.Second)
		for i := range publicRate {
			if r := begin("[2001:db8::1]:9"); r.StatusCode != 404 {
				t.Fatalf("a second later, request %d: %d", i, r.StatusCode)
			}
		}
		if r := begin("[2001:db8::1]:9"); r.StatusCode != 429 {
			t.Errorf("a second later, over the rate: %d", r.StatusCode)
		}
	})
}

func TestRateLimitIsBounded(t *testing.T) {
	l := newLimiter(1, 1, 100)
	a := netip.MustParseAddr("198.51.100.1")
	for range 5000 {
		a = a.Next()
		l.take(a)
	}
	if len(l.sources) != 100 || l.order.Len() != 100 {
		t.Errorf("%d and %d sources remembered, want 100", len(l.sources), l.order.Len())
	}
}
