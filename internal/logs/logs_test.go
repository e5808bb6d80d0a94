package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The same event in each format, with and without a journal.
func TestFormats(t *testing.T) {
	event := func(o Options) string {
		var b bytes.Buffer
		o.Level = slog.LevelDebug
		l := New(&b, o)
		l.With("part", "portal").Warn("refused a request", "user", "alice", "why", errors.New("a \"wrong\"\ncode"))
		return b.String()
	}
	for _, c := range []struct {
		o            Options
		begins, ends string
	}{
		{Options{Format: "text"}, "20", ` warn: refused a request part=portal user=alice why="a \"wrong\"\ncode"` + "\n"},
		{Options{Format: "text", Journal: true}, "<4>warn: refused", `part=portal user=alice why="a \"wrong\"\ncode"` + "\n"},
		{Options{Format: "logfmt"}, "time=20", `level=WARN msg="refused a request" part=portal user=alice why="a \"wrong\"\ncode"` + "\n"},
		{Options{Format: "logfmt", Journal: true}, "<4>time=", "\n"},
		{Options{Format: "json"}, `{"time":"20`, `"part":"portal","user":"alice","why":"a \"wrong\"\ncode"}` + "\n"},
		{Options{Format: "json", Journal: true}, `<4>{"time":"`, "\n"},
	} {
		got := event(c.o)
		if !strings.HasPrefix(got, c.begins) || !strings.HasSuffix(got, c.ends) || strings.Count(got, "\n") != 1 {
			t.Errorf("%+v: %q", c.o, got)
		}
	}
	if err := json.Unmarshal([]byte(event(Options{Format: "json"})), &map[string]any{}); err != nil {
		t.Error(err)
	}
}

func TestLevels(t *testing.T) {
	for _, format := range []string{"text", "logfmt", "json"} {
		var b bytes.Buffer
		l := New(&b, Options{Format: format, Level: slog.LevelWarn, Journal: true})
		l.Debug("one")
		l.Info("two")
		l.Warn("three")
		l.Error("four")
		if got := b.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "three") || !strings.Contains(got, "<3>") || !strings.Contains(got, "<4>") {
			t.Errorf("%s: %q", format, got)
		}
	}
}

// Nothing in a message, a field or a value makes a second line or moves the cursor.
func FuzzOneLine(f *testing.F) {
	f.Add("a\nb", "c\x1b[2J")
	f.Add("a\u2028b", "\u202ec")
	f.Fuzz(func(t *testing.T, msg, value string) {
		var b bytes.Buffer
		New(&b, Options{Format: "text"}).Info(msg, "why", value)
		line := strings.TrimSuffix(b.String(), "\n")
		if strings.IndexFunc(line, isControl) >= 0 {
			t.Errorf("%q", line)
		}
	})
}

// The level in front of a line is that of its event, whoever writes at the same time.
func TestPriorityUnderConcurrency(t *testing.T) {
	var b bytes.Buffer
	l := New(&b, Options{Format: "logfmt", Journal: true})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if i%2 == 0 {
				l.Info("info")
			} else {
				l.Error("error")
			}
		})
	}
	wg.Wait()
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, "<3>") != strings.Contains(line, "msg=error") {
			t.Errorf("%q", line)
		}
	}
}

func TestInJournal(t *testing.T) {
	var st unix.Stat_t
	if err := unix.Fstat(2, &st); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
	if !InJournal(os.Stderr) {
		t.Error("the journal is not known")
	}
	t.Setenv("JOURNAL_STREAM", "1:1")
	if InJournal(os.Stderr) {
		t.Error("another file is taken for the journal")
	}
}

// A request is named by our own pattern, whatever its client wrote.
func TestRequest(t *testing.T) {
	var got []string
	mux := http.NewServeMux()
	each := func(_ http.ResponseWriter, r *http.Request) { got = append(got, Request(r)) }
	mux.HandleFunc("POST /api/session", each)
	mux.HandleFunc("GET /files/{id}", each)
	mux.HandleFunc("/", each)
	for _, r := range []string{"POST /api/session?code=123456", "GET /files/SECRET", "GET /SECRET", "DELETE /"} {
		method, path, _ := strings.Cut(r, " ")
		mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, path, nil))
	}
	want := []string{"POST /api/session", "GET /files/{id}", "GET (no such path)", "DELETE (no such path)"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// What net/http's server writes becomes events, with whence it came, and without a panic's value.
func TestHTTPErrors(t *testing.T) {
	var b bytes.Buffer
	to := HTTPErrors(New(&b, Options{Format: "logfmt", Level: slog.LevelDebug}))
	to.Printf("http: TLS handshake error from [2001:db8::1]:443: tls: no certificate\n")
	to.Printf("http: panic serving 192.0.2.1:7: canary\ngoroutine 1 [running]:\nmain.go:3\n")
	to.Printf("http: panic serving 192.0.2.1:7: runtime error: index out of range\ngoroutine 1")
	to.Printf("http: Accept error: too many open files; retrying in 5ms")
	want := []string{
		`level=DEBUG msg="a TLS handshake failed" what=tls.handshake source=[2001:db8::1]:443 why="tls: no certificate"`,
		`level=WARN msg="a request panicked" what=http.panic source=192.0.2.1:7 why="its value is not logged" stack="goroutine 1 [running]:\nmain.go:3"`,
		`level=WARN msg="a request panicked" what=http.panic source=192.0.2.1:7 why="runtime error: index out of range" stack="goroutine 1"`,
		`level=WARN msg="the web server" what=http.serve why="Accept error: too many open files; retrying in 5ms"`,
	}
	var got []string
	for line := range strings.Lines(b.String()) {
		_, event, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ") // the time
		got = append(got, event)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
