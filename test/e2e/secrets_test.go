package e2e

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	vpnv1 "vpnd/proto/vpn/v1"
)

// secrets are the canaries of a run, in every spelling in which they might get out.
type secrets struct {
	spelling map[string][]byte // what it is -> its bytes
	codes    map[string]bool
}

func (s *secrets) plant(what string, raw []byte) {
	if len(raw) < 16 {
		panic(what + " is too short to be found for sure")
	}
	s.spelling[what+", as it is"] = raw
	s.spelling[what+", in base64"] = []byte(strings.TrimRight(base64.StdEncoding.EncodeToString(raw), "="))
	s.spelling[what+", in base64url"] = []byte(base64.RawURLEncoding.EncodeToString(raw))
	s.spelling[what+", in hex"] = []byte(hex.EncodeToString(raw))
	s.spelling[what+", in base32"] = []byte(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw))
}

// key plants a key that is written in base64.
func (s *secrets) key(t *testing.T, what, text string) {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	s.plant(what, raw)
}

// config plants what is secret in a WireGuard config.
func (s *secrets) config(t *testing.T, what, conf string) {
	t.Helper()
	for _, field := range []string{"PrivateKey", "PresharedKey"} {
		_, v, ok := strings.Cut(conf, field+" = ")
		if !ok {
			t.Fatalf("%s has no %s:\n%s", what, field, conf)
		}
		v, _, _ = strings.Cut(v, "\n")
		s.key(t, what+"'s "+field, v)
	}
}

// token plants an invitation's.
func (s *secrets) token(t *testing.T, what, link string) {
	t.Helper()
	_, token, ok := strings.Cut(link, "#")
	if !ok {
		t.Fatalf("%s: no token in %q", what, link)
	}
	if raw, err := base64.RawURLEncoding.DecodeString(token); err == nil {
		s.plant(what, raw)
	}
	s.spelling[what+", as it is"] = []byte(token)
}

// client plants what a person's device has.
func (s *secrets) client(t *testing.T, c *client) {
	t.Helper()
	s.config(t, c.user+"/"+c.device, c.conf)
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(c.secret)
	if err != nil {
		t.Fatal(err)
	}
	s.plant(c.user+"'s TOTP secret", raw)
	jar, err := os.ReadFile("/run/jar-" + c.name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(jar)) {
		if f := strings.Split(strings.TrimSpace(line), "\t"); len(f) == 7 && len(f[6]) >= 16 {
			s.spelling[c.user+"'s enrolment cookie"] = []byte(f[6])
		}
	}
	for step := c.step - 4; step <= c.step; step++ {
		s.codes[c.codeAt(step)] = true
	}
}

// number is a code on its own: not a part of a longer number or word.
var number = regexp.MustCompile(`(?:^|[^0-9A-Za-z.+/=_-])([0-9]{6})(?:$|[^0-9A-Za-z.+/=_-])`)

var word = regexp.MustCompile(`^[0-9A-Za-z_-]+$`)

// find names the secrets that are in b.
func (s *secrets) find(b []byte) (found []string) {
	for what, secret := range s.spelling {
		if bytes.Contains(b, secret) {
			found = append(found, what)
		}
	}
	for _, m := range number.FindAllSubmatch(b, -1) {
		if s.codes[string(m[1])] {
			found = append(found, "a code, "+string(m[1]))
		}
	}
	return found
}

// watchArguments collects the arguments and the environment of our programs while it runs.
func watchArguments() (stop func() []byte) {
	var mu sync.Mutex
	var all bytes.Buffer
	seen := map[string]bool{}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(2 * time.Millisecond):
			}
			files, err := filepath.Glob("/proc/[0-9]*/cmdline")
			if err != nil {
				return
			}
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil || !bytes.Contains(b, []byte("vpn")) && !bytes.Contains(b, []byte("protected-app")) {
					continue // it has ended, or is no business of ours
				}
				if exe, err := os.Readlink(filepath.Dir(f) + "/exe"); err != nil || !strings.Contains("vpnd vpnctl protected-app", filepath.Base(exe)) {
					continue
				}
				env, err := os.ReadFile(filepath.Dir(f) + "/environ")
				if err != nil || seen[string(b)] {
					continue
				}
				mu.Lock()
				seen[string(b)] = true
				all.Write(append(append(b, '\n'), env...))
				mu.Unlock()
			}
		}
	})
	return func() []byte { close(done); wg.Wait(); return all.Bytes() }
}

// foreign gives the lines of a log that are not in its format, as a library would write them.
func foreign(format, text string) (out []string) {
	logfmt := regexp.MustCompile(`^time=\S+ level=(DEBUG|INFO|WARN|ERROR) msg=("(\\.|[^"\\])*"|\S+)( [a-z_]+=("(\\.|[^"\\])*"|\S*))*$`)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		var e struct{ Time, Level, Msg string }
		if format == "json" && (json.Unmarshal([]byte(line), &e) != nil || e.Time == "" || e.Level == "" || e.Msg == "") ||
			format == "logfmt" && !logfmt.MatchString(line) {
			out = append(out, line)
		}
	}
	return out
}

// Secrets are in no log, no snapshot, no data folder, no argument, no answer and no audit
// entry, whatever is done; the logs tell all that they can, and every line is in their format.
func TestSecrets(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		s := &secrets{spelling: map[string][]byte{}, codes: map[string]bool{}}
		arguments := watchArguments()
		format := map[string]string{"linux": "json", "netstack": "logfmt"}[w.plane]
		w.logs = []string{"--log-level", "debug", "--log-format", format}
		w.startVpnd()
		w.startApp()
		w.policy(openPolicy)

		// Everything that people and administrators do; the answers whose purpose is to hand
		// a secret over are left out of the search, and the secret is planted.
		alice, bob := w.person("alice", "phone"), w.person("bob", "tablet")
		alice.signIn()
		bob.signIn()
		var answers strings.Builder
		admin := func(args ...string) {
			t.Helper()
			answers.WriteString(w.vpnctl(args...) + "\n")
			if args[0] != "policy" {
				answers.WriteString(w.vpnctl(append(args, "-o", "json")...) + "\n")
			}
		}
		invite := func(what string, args ...string) {
			t.Helper()
			var a struct {
				Invitation struct{ Link string } `json:"invitation"`
			}
			w.vpnctlJSON(&a, args...)
			s.token(t, what, a.Invitation.Link)
		}
		invite("carol's invitation", "user", "add", "carol")
		invite("carol's second invitation", "user", "invite", "carol")
		s.config(t, "carol/server", w.vpnctl("device", "add", "carol", "server"))
		s.config(t, "carol/server, rotated", w.vpnctl("device", "rotate", "carol/server"))
		s.client(t, alice)
		invite("bob's invitation", "user", "invite", "bob")
		s.client(t, bob)
		s.codes[bob.code()] = true // a code that is wrong for alice
		for _, code := range []string{bob.codeAt(bob.step), alice.codeAt(alice.step)} {
			var e apiError
			if status := alice.tunnel("POST", "/api/v1/session", map[string]string{"code": code}, &e); status != 401 {
				t.Errorf("a wrong or used code: %d", status)
			}
			fmt.Fprintf(&answers, "%+v\n", e)
		}
		// Secrets where they do not belong: in a path, a query, a header.
		for what, secret := range s.spelling {
			if !strings.Contains(what, "invitation, as it is") && !strings.Contains(what, "in base32") || !word.Match(secret) {
				continue
			}
			for _, url := range []string{"https://" + gwPublic4 + ":8443/enroll/" + string(secret), "https://" + gwPublic4 + ":8443/enroll?token=" + string(secret), "http://" + tunnel4 + "/" + string(secret)} {
				if _, _, _, err := alice.get(url, "-k"); err != nil {
					t.Error(err)
				}
			}
		}
		for _, path := range []string{"/", "/api/v1/session"} {
			_, body, _, err := alice.get("http://" + tunnel4 + path)
			if err != nil {
				t.Error(err)
			}
			answers.WriteString(body)
		}
		if status, _, _, err := alice.get(app + "/api/files/none"); err != nil || status != 404 {
			t.Errorf("a file that is not there: %d %v", status, err)
		}
		for _, args := range []string{"user ls", "user show alice", "user show bob", "user show carol", "device ls", "device show alice/phone", "device show carol/server",
			"session ls", "settings show", "status", "whois " + alice.addr4, "policy show", "policy history", "audit -n 500"} {
			admin(strings.Fields(args)...)
		}
		s.token(t, "carol's third invitation", linkOf(t, w, "user", "reset-totp", "carol"))
		w.vpnctl("device", "disable", "alice/phone")
		w.vpnctl("device", "enable", "alice/phone")
		w.vpnctl("session", "end", "bob")
		w.vpnctl("user", "rm", "bob", "--yes")
		if w.plane == "linux" {
			_, key, _ := strings.Cut(w.gw.run("wg", "showconf", w.iface), "PrivateKey = ")
			key, _, _ = strings.Cut(key, "\n")
			s.key(t, "the gateway's PrivateKey", key)
		} else {
			w.forceSnapshot()
		}
		sealing, err := os.ReadFile(w.path("sealing.key"))
		if err != nil {
			t.Fatal(err)
		}
		s.key(t, "the sealing key", string(sealing))
		admin("audit", "-n", "10000")
		w.vpnd.stop(t, syscall.SIGTERM)
		first := w.vpnd.log.String()
		w.startVpnd()
		w.vpnctl("user", "ls")

		for name, text := range map[string]string{"vpnd's log": first + w.vpnd.log.String(), "the app's log": w.app.log.String()} {
			for _, line := range foreign(format, text) {
				t.Errorf("%s has a line in another format: %q", name, line)
			}
			if !strings.Contains(text, map[string]string{"json": `"level":"DEBUG"`, "logfmt": "level=DEBUG"}[format]) {
				t.Errorf("%s has nothing at debug level:\n%s", name, text)
			}
		}
		for name, text := range map[string]string{
			"vpnd's log": first + w.vpnd.log.String(), "the app's log": w.app.log.String(),
			"the answers": answers.String(), "the arguments and environment": string(arguments()),
		} {
			if len(text) < 100 {
				t.Errorf("%s: hardly anything was seen: %q", name, text)
			}
			for _, what := range s.find([]byte(text)) {
				t.Errorf("%s: there is %s", name, what)
			}
		}
		seen := map[string]int{}
		err = filepath.WalkDir(w.path("data"), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			seen[filepath.Base(path)] = len(b)
			for _, what := range s.find(b) {
				t.Errorf("%s: there is %s", path, what)
			}
			if bytes.Contains(b, []byte("PRIVATE KEY")) {
				t.Errorf("%s holds a private key in PEM", path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if w.plane != "linux" && seen["state.bin"] == 0 {
			t.Errorf("there is no snapshot in the data folder: %v", seen)
		}
		// The search does find what is there.
		if len(s.find([]byte("x"+alice.secret+"y"))) == 0 || len(s.find([]byte(alice.conf))) < 2 {
			t.Fatal("the search finds nothing where there is something")
		}
	})
}

func linkOf(t *testing.T, w *world, args ...string) string {
	t.Helper()
	var a struct {
		Invitation struct{ Link string } `json:"invitation"`
	}
	w.vpnctlJSON(&a, args...)
	return a.Invitation.Link
}

// forceSnapshot gives Raft so many commands that it takes a snapshot.
func (w *world) forceSnapshot() {
	w.t.Helper()
	users := vpnv1.NewUserServiceClient(w.grpc())
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 135 {
				if _, err := users.InviteUser(w.t.Context(), &vpnv1.InviteUserRequest{Name: "carol"}); err != nil {
					w.t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	eventually(w.t, 40*time.Second, "there is a snapshot", func() error {
		if found, err := filepath.Glob(w.path("data/raft/snapshots/*[0-9]/state.bin")); err != nil || len(found) == 0 {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
}
