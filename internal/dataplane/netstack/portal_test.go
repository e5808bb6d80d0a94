package netstack

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"vpnd/internal/dataplane"
)

// servePortal answers every request with the two addresses of its connection.
func servePortal(t testing.TB, p *Plane) {
	t.Helper()
	l, err := p.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%s asked %v", host, r.Context().Value(http.LocalAddrContextKey))
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
}

func get(t testing.TB, c *http.Client, url string) string {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		return "error: " + err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b)
}

func TestPortalWithoutSession(t *testing.T) {
	g := testGateway(t)
	p := newPlane(t, dataplane.Config{AppPort: 8080}, dataplane.State{
		Gateway: g, Devices: []dataplane.Device{testDevice(2, "alice/laptop")},
	})
	servePortal(t, p)
	c := httpClient(newClient(t, 2, g))
	for _, test := range []struct{ url, want string }{
		{"http://10.77.0.1/", "10.77.0.2 asked 10.77.0.1:80"},
		{"http://[fd77::1]/", "fd77::2 asked [fd77::1]:80"},
		{"http://10.77.0.1:8080/", "10.77.0.2 asked 10.77.0.1:8080"},
		{"http://[fd77::1]:8080/", "fd77::2 asked [fd77::1]:8080"},
		{"http://192.0.2.7/", "10.77.0.2 asked 192.0.2.7:80"},
		{"http://[2001:db8::7]/", "fd77::2 asked [2001:db8::7]:80"},
		{"http://10.77.0.9/", "10.77.0.2 asked 10.77.0.9:80"},
	} {
		if got := get(t, c, test.url); got != test.want {
			t.Errorf("GET %s = %q, want %q", test.url, got, test.want)
		}
	}
}
