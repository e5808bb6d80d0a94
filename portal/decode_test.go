package portal

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// TestRefusedBodies sends what is not the expected JSON object.
func TestRefusedBodies(t *testing.T) {
	f := newFake()
	f.fail = errors.New("control must not be asked")
	h, _ := publicUnderTest(t, f)
	th := Tunnel(Config{Service: f, Tunnel: []netip.Addr{tunnel4}, AppPort: 8080})
	type target struct {
		h   http.Handler
		url string
	}
	targets := []target{{h, publicURL + "/api/v1/enroll/begin"}, {h, publicURL + "/api/v1/enroll/finish"},
		{h, publicURL + "/api/v1/enroll/status"}, {th, "http://10.77.0.1/api/v1/session"}}
	for _, to := range targets {
		for _, tt := range []struct {
			name, contentType, body string
			status                  int
			code                    string
		}{
			{"no body", "application/json", "", 400, "bad_request"},
			{"array", "application/json", "[]", 400, "bad_request"},
			{"unknown field", "application/json", `{"role":"admin"}`, 400, "bad_request"},
			{"two values", "application/json", `{}{}`, 400, "bad_request"},
			{"rest", "application/json", `{} x`, 400, "bad_request"},
			{"wrong type", "application/json", `{"token":1,"code":1}`, 400, "bad_request"},
			{"form", "application/x-www-form-urlencoded", `{}`, 415, "json_only"},
			{"text", "text/plain", `{}`, 415, "json_only"},
			{"no type", "", `{}`, 415, "json_only"},
			{"charset", "application/json; charset=utf-16", `{}`, 415, "json_only"},
			{"oversize", "application/json", `{"token":"` + strings.Repeat("a", maxBody) + `"}`, 413, "too_large"},
			{"oversize blank", "application/json", `{}` + strings.Repeat(" ", maxBody), 413, "too_large"},
		} {
			t.Run(to.url+" "+tt.name, func(t *testing.T) {
				body := tt.body
				if strings.HasPrefix(to.url, "http://") {
					body = strings.ReplaceAll(body, `"token":"`, `"code":"`)
				}
				r := ask(to.h, "POST", to.url, body, func(r *http.Request) {
					r.RemoteAddr = "10.77.0.2:999"
					r.Header.Set("Content-Type", tt.contentType)
				})
				if got := errorCode(t, r); r.StatusCode != tt.status || got != tt.code {
					t.Errorf("%d %s, want %d %s", r.StatusCode, got, tt.status, tt.code)
				}
			})
		}
	}
}
