package portal

import "net/http"

// csp permits what our own pages do and nothing else. Scripts and styles come from files
// alone; img-src data: is for the QR codes; Trusted Types make writing HTML from a script
// an error, so that no text from a server or an address bar can become markup.
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
	"connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

// commonHeaders are on every answer of either side. Everything is no-store unless a
// handler says otherwise: only the hashed assets do.
func commonHeaders(h http.Header) {
	h.Set("Content-Security-Policy", csp)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	h.Set("Cache-Control", "no-store")
}

// publicHeaders leaves Strict-Transport-Security out on purpose: with the gateway's own
// CA it would turn the browser's warning into a wall, and the next certificate change
// into an outage; and nothing is served on plain HTTP there.
func publicHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		commonHeaders(w.Header())
		w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// tunnelHeaders lacks the opener policy: browsers ignore it, loudly, on plain HTTP.
func tunnelHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		commonHeaders(w.Header())
		next.ServeHTTP(w, r)
	})
}
