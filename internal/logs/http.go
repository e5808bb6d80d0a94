package logs

import (
	"log"
	"log/slog"
	"net/http"
	"strings"
)

// Request names a request by its method and by the pattern of ours that took it. What the client
// wrote is not in it: a person who mistakes a token or a code for an address puts it into the path.
func Request(r *http.Request) string {
	pattern := strings.TrimPrefix(r.Pattern, r.Method+" ")
	if pattern == "" || pattern == "/" { // what takes the rest
		pattern = "(no such path)"
	}
	return r.Method + " " + pattern
}

// HTTPErrors makes events of what net/http's server writes: it knows lines only.
func HTTPErrors(to *slog.Logger) *log.Logger { return log.New(httpErrors{to}, "", 0) }

type httpErrors struct{ to *slog.Logger }

// The beginnings of net/http's lines that name a client.
const (
	handshakeLine = "http: TLS handshake error from "
	panicLine     = "http: panic serving "
)

// Write takes a line, or a panic with its stack. Failed handshakes are the weather of a public
// port. A panic's value may quote the request, unless the runtime made it.
func (h httpErrors) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	if rest, ok := strings.CutPrefix(line, handshakeLine); ok {
		source, why, _ := strings.Cut(rest, ": ")
		h.to.Debug("a TLS handshake failed", "what", "tls.handshake", "source", source, "why", why)
	} else if rest, ok := strings.CutPrefix(line, panicLine); ok {
		source, rest, _ := strings.Cut(rest, ": ")
		why, stack, _ := strings.Cut(rest, "\n")
		if !strings.HasPrefix(why, "runtime error: ") {
			why = "its value is not logged"
		}
		h.to.Warn("a request panicked", "what", "http.panic", "source", source, "why", why, "stack", stack)
	} else {
		h.to.Warn("the web server", "what", "http.serve", "why", strings.TrimPrefix(line, "http: "))
	}
	return len(b), nil
}
