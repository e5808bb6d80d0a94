package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/grpclog"
	gvisor "gvisor.dev/gvisor/pkg/log"

	"vpnd/internal/logs"
	"vpnd/peers"
)

// safeBuffer is written by one goroutine and read by another.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *safeBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// What is done is a line each, with the fields that one greps for; what was done before the
// start is not told again.
func TestEvents(t *testing.T) {
	d := daemonOn(t, &brokenPlane{})
	out := &safeBuffer{}
	d.log = newLog(&Flags{LogFormat: "json"}, out, &d.level)
	do := func(actor string, body peers.Body) {
		t.Helper()
		if _, _, err := d.store.Propose(t.Context(), peers.Command{At: time.Now(), Actor: actor, Body: body}); err != nil {
			t.Fatal(err)
		}
	}
	do("uid 0", peers.Note{Action: "user.add", Target: "before"})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	first := d.store.State().View()
	go func() { d.logEvents(ctx, first); close(done) }()
	do("alice", peers.Note{Action: "session.start", Target: "alice/phone", Detail: "until noon"})
	do("gateway", peers.Note{Action: "gateway.drift", Target: "table vpnd"})
	do("portal", peers.Note{Action: "user.lock", Target: "alice"})
	do("gateway", peers.Note{Action: "session.expire", Target: "alice/phone, bob/laptop"})
	do("uid 0", peers.Note{Action: "policy.apply", Target: "version 2"})
	for range 1000 {
		if strings.Contains(out.String(), "policy.apply") {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	stop()
	<-done
	var got []string
	for dec := json.NewDecoder(strings.NewReader(out.String())); ; {
		var e map[string]any
		if err := dec.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprint(e["level"], " ", e["what"], " by ", e["who"], ":")
		for _, k := range []string{"user", "device", "target", "why"} {
			if v, ok := e[k]; ok {
				line += fmt.Sprintf(" %s=%v", k, v)
			}
		}
		got = append(got, line)
	}
	want := []string{
		"INFO session.start by alice: user=alice device=phone why=until noon",
		"WARN user.lock by portal: user=alice",
		"INFO session.expire by gateway: user=alice device=phone",
		"INFO session.expire by gateway: user=bob device=laptop",
		"INFO policy.apply by uid 0: target=version 2",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A vpnd that ends says so in its log's format; to a person as every command does.
func TestFailInFormat(t *testing.T) {
	for format, want := range map[string]string{"text": "vpnd: ", "json": `"msg":"vpnd ends","why":"`, "logfmt": `msg="vpnd ends" why=`} {
		dir := t.TempDir()
		var out bytes.Buffer
		code := Main(t.Context(), []string{"--log-format", format, "--data", "/dev/null/x", "--sealing-key", dir + "/k", "--control", dir + "/c", "--plane", "netstack", "--portal", "127.0.0.1:48443"}, &out)
		if code != 1 || !strings.Contains(out.String(), want) || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%s: exit code %d, %q", format, code, out.String())
		}
	}
}

// A reload changes the log's level, names what needs a restart, and with a file that is
// wrong changes nothing.
func TestReload(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	path := writeConfig(t, "log-level = \"warn\"\nportal = \":9000\"\n")
	f, err := parse([]string{"--config", path}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	out := &safeBuffer{}
	d := &Daemon{flags: f}
	d.log = newLog(f, out, &d.level)
	for _, c := range []struct {
		text  string
		level slog.Level
		says  string
	}{
		{"log-level = \"warn\"\nportal = \":9000\"\n", slog.LevelWarn, ""},
		{"log-level = \"debug\"\nportal = \":9001\"\napp-port = 1\n", slog.LevelDebug, "need a restart what=portal,app-port"},
		{"log-levle = \"error\"\n", slog.LevelDebug, "log-levle"},
		{"log-level = \"error\"\n", slog.LevelError, ""},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		before := len(out.String())
		d.reload()
		if said := out.String()[before:]; d.level.Level() != c.level || !strings.Contains(said, c.says) || c.says == "" && strings.Contains(said, "warn:") {
			t.Errorf("%q: level %v, %q", c.text, d.level.Level(), said)
		}
	}
}

// What libraries write by themselves are events of ours.
func TestLibraries(t *testing.T) {
	var b bytes.Buffer
	takeLibraries(logs.New(&b, logs.Options{Format: "logfmt"}))
	grpclog.Infof("chatter")
	grpclog.Warningf("a connection ended")
	grpclog.Errorf("broken %d", 7)
	log.Printf("[ERROR] solver: %d\nsecond", 8)
	gvisor.Infof("chatter")
	gvisor.Warningf("odd %d", 9)
	var got []string
	for line := range strings.Lines(b.String()) {
		_, event, _ := strings.Cut(line, " ") // the time
		got = append(got, event)
	}
	want := []string{
		`level=WARN msg="gRPC fails" part=grpc what=grpc why="broken 7"` + "\n",
		`level=WARN msg="a library warns" part=library why="[ERROR] solver: 8\nsecond"` + "\n",
		`level=WARN msg="gVisor warns" part=gvisor what=gvisor why="odd 9"` + "\n",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
