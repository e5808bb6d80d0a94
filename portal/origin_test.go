package portal

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestHostPortHasOneSpelling(t *testing.T) {
	for host, want := range map[string]string{
		"vpn.example.org": "vpn.example.org 443", "VPN.Example.ORG:8443": "vpn.example.org 8443",
		"10.77.0.1": "10.77.0.1 443", "[fd00::1]:80": "fd00::1 80", "[FD00::1]": "fd00::1 443",
		"vpn.example.org.":     "vpn.example.org. 443", // another name, which no certificate has
		"v\u212an.example.org": " ", "vpn.example.org:": " ", "vpn.example.org:0443": " ", "vpn.example.org:+443": " ",
		"vpn.example.org:65536": " ", "a@vpn.example.org": " ", "vpn.example.org/": " ", "vpn.example.org?": " ", "vpn.example.org#": " ",
		"%76pn.example.org": " ", "vpn.example.org\\": " ", "[fe80::1%25eth0]": " ", "fd00::1": " ", "vpn.example.org\t": " ", "": " 443",
	} {
		name, port := hostPort(host, "443")
		if got := name + " " + port; got != want {
			t.Errorf("%q: got %q, want %q", host, got, want)
		}
	}
}

func TestOriginHasOneSpelling(t *testing.T) {
	for origin, ok := range map[string]bool{
		"https://kate.example.org": true, "https://kate.example.org:443": true, "https://KATE.example.org": true,
		"https://\u212aate.example.org": false, "https://kate.example.org:0443": false, "https://kate.example.org:": false, "HTTPS://kate.example.org": false,
		"http://kate.example.org": false, "https://kate.example.org.": false, "https://kate.example.org/": false, "https://kate.example.org:8443": false,
		"https://kate.example.org@evil.example": false, "https://evil.example": false, "null": false, "": false, "https://": false,
	} {
		r := httptest.NewRequest(http.MethodPost, "https://kate.example.org/", nil)
		r.Header.Set("Origin", origin)
		if err := sameOrigin(r, "https", "443"); (err == nil) != ok {
			t.Errorf("%q: %v", origin, err)
		}
	}
}
