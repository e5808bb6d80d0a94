package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What README.md and docs/ tell people to type: blocks marked sh, and commands within a
// sentence.
var (
	fence     = regexp.MustCompile("(?ms)^```(\\w*)[^\n]*\n(.*?)^```$")
	codeSpan  = regexp.MustCompile("`([^`]+)`")
	options   = regexp.MustCompile(` (-|[A-Z]).*`) // and NAMEs
	isCommand = regexp.MustCompile(`^(sudo |bin/)?(vpnd|vpnctl|protected-app|service|systemctl|journalctl|make|apt|dpkg|ufw|man|docker|podman|certbot|promtool) \S`)
)

// guide is a command that a page gives, and what makes its words true.
type guide struct {
	text   string // word for word
	before string // a shell's commands, as root, in the same folder
	types  string // what a person types when she is asked; she sits at a terminal then
	// test is where else it runs: a file of ours that reads the page, or that has the line. "-"
	// stands for commands that run tests or measure, themselves.
	test string
}

// typed finds what the pages tell to type, in their order.
func typed(t *testing.T) (blocks, spans []string) {
	t.Helper()
	pages, err := filepath.Glob(project(t, "docs/*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	for _, page := range append([]string{project(t, "README.md")}, pages...) {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fence.FindAllStringSubmatch(string(b), -1) {
			if m[1] == "sh" {
				blocks = append(blocks, strings.TrimSuffix(m[2], "\n"))
			}
		}
		for _, m := range codeSpan.FindAllStringSubmatch(fence.ReplaceAllString(string(b), ""), -1) {
			if s := strings.Join(strings.Fields(m[1]), " "); isCommand.MatchString(s) {
				spans = append(spans, s)
			}
		}
	}
	return blocks, spans
}

// Every command that the pages give runs, word for word: on a fresh server, and in a clone.
func TestGuide(t *testing.T) {
	t.Parallel()
	blocks, spans := typed(t)
	steps := slices.Concat(guideClone, guideServer)
	for _, s := range steps {
		if s.test != "" && s.test != "-" {
			if b, err := os.ReadFile(project(t, s.test)); err != nil || !strings.Contains(string(b), s.text) && !strings.Contains(string(b), "docs/policy.md") {
				t.Errorf("%s does not run %q (%v)", s.test, s.text, err)
			}
		}
		said := func(text string) bool { return text == s.text || s.test != "" && strings.HasPrefix(text, s.text) }
		if !slices.ContainsFunc(blocks, said) && !slices.ContainsFunc(spans, said) {
			t.Errorf("no page says this any more: %s", s.text)
		}
	}
	known := func(text string) bool {
		return slices.ContainsFunc(steps, func(s guide) bool { return s.text == text || s.test != "" && strings.HasPrefix(text, s.text) })
	}
	for _, b := range blocks {
		if !known(b) {
			t.Errorf("nothing runs this block of a page: it needs a line in guide_test.go:\n%s", b)
		}
	}
	// A command of vpnctl that is only named has to exist.
	var named []string
	for _, s := range spans {
		switch {
		case known(s) || slices.Contains(named, s):
		case strings.HasPrefix(s, "vpnctl "):
			named = append(named, s)
		default:
			t.Errorf("nothing runs this command of a page: it needs a line in guide_test.go: %s", s)
		}
	}
	t.Run("server", func(t *testing.T) { t.Parallel(); guideOnServer(t, named) })
	t.Run("clone", func(t *testing.T) { t.Parallel(); guideInClone(t) })
}

// guideServer is what is typed on a server with the package, as root, in this order.
var guideServer = []guide{
	{text: "make deb", test: "test/run"},
	{text: "sudo apt install ./vpnd_*_amd64.deb\nsudo vpnctl user add alice        # prints an invitation: a link and a QR code"},
	{text: "sudo apt install ./vpnd_*_amd64.deb", before: "apt-get purge -y -q vpnd"},
	{text: "sudo vpnctl user add alice"},
	{text: "sudo vpnctl doctor"},
	{text: "sudo vpnctl settings set --endpoint vpn.example.com:51820 --url https://vpn.example.com:8443"},
	{text: "sudo ufw allow 51820/udp && sudo ufw allow 8443/tcp"},
	{text: "sudo service vpnd status\nsudo service vpnd restart"},
	{text: "sudo service vpnd restart"},
	{text: "sudo install -o vpnd -g vpnd -m 0600 /etc/letsencrypt/live/vpn.example.com/privkey.pem /etc/vpnd/portal.key\nsudo install -o vpnd -g vpnd -m 0644 /etc/letsencrypt/live/vpn.example.com/fullchain.pem /etc/vpnd/portal.crt",
		before: "mkdir -p /etc/letsencrypt/live/vpn.example.com; cd /etc/letsencrypt/live/vpn.example.com; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=vpn.example.com -keyout privkey.pem -out fullchain.pem 2>/dev/null; cd /root"},
	{text: "service vpnd start", before: "service vpnd stop"},
	{text: "service vpnd status"},
	{text: "journalctl -u vpnd"},
	{text: "journalctl -u vpnd -p warning"},
	{text: "systemctl edit vpnd", before: "cp /etc/vpnd/sealing.key /root/vpnd-sealing.key; export SYSTEMD_EDITOR=/root/editor", types: "\n"},
	{text: "vpnd --help"},
	{text: "vpnd --config /etc/vpnd/vpnd.toml --check-config"},
	{text: "man vpnd.toml"},
	{text: `vpnctl policy show > policy.hujson        # what is in force
vpnctl policy check policy.hujson         # what is wrong with the file; changes nothing
vpnctl policy diff policy.hujson          # who would gain and who would lose what
vpnctl policy apply policy.hujson -m why  # make it the policy
vpnctl policy edit                        # show, check and apply by way of your editor
vpnctl policy history                     # every version, when and by whom
vpnctl policy rollback 7                  # apply version 7 again`,
		before: `for u in bob carol emergency; do vpnctl user add $u; done
for i in 1 2 3 4 5 6 7; do echo '{"groups": {"group:ops": ["alice"]}, "tagOwners": {"tag:web": [], "tag:site": []}, "grants": [{"src": ["group:ops"], "dst": ["app"], "ip": ["tcp:8080"], "note": "'$i'"}]}' | vpnctl policy apply - ; done
export EDITOR='sed -i s/"7"/"eight"/'`,
		types: "y\ny\ny\n"},
	{text: "vpnctl policy apply policy.hujson --confirm 60s\nvpnctl policy confirm                     # within a minute, from where you need to be",
		before: "vpnctl policy show | sed 's/note\": \"/&more /' > policy.hujson"},
	{text: "vpnctl policy rollback", before: "sed -i 's/note\": \"/&and /' policy.hujson; vpnctl policy apply policy.hujson --confirm 60s"},
	{text: `vpnctl group ls ops                       # who is in it, through other groups too
vpnctl group add ops bob                  # "group:ops" gets one more member
vpnctl group add dba carol --new          # a group that there is not yet
vpnctl group rm ops bob`},
	{text: "sudo vpnctl resource add wiki http://localhost:3000 --for alice"},
	{text: "sudo vpnctl resource add db 10.6.0.2:5432 --for alice"},
	{text: "sudo vpnctl group add dba alice --new\nsudo vpnctl resource add orders 10.6.0.2:5432 --for group:dba --mfa 15m --title \"Orders database\""},
	{text: "sudo vpnctl resource add wiki http://localhost:3000 --for autogroup:member --title \"Team wiki\"", before: "vpnctl resource rm wiki"},
	{text: "sudo vpnctl resource add mail localhost:25 --for group:dba --from-gateway"},
	{text: "sudo vpnctl resource add metrics unix:/run/metrics/http.sock --port 9100 --for group:dba"},
	{text: "sudo vpnctl resource add files nas.lan --ports tcp:445 --for group:dba --title \"Team files\""},
	{text: "sudo vpnctl resource add build 10.6.0.7:22 --for group:dba"},
	{text: "vpnctl device add bob web1 --tag tag:web"},
	{text: "vpnctl device add alice leipzig --tag tag:site"},
	{text: "vpnctl device rotate emergency/card", before: "vpnctl device add emergency card"},
	{text: "vpnctl settings set --masquerade off"},
	{text: "sudo install -o vpnd -g vpnd -m 0600 sealing.key /etc/vpnd/sealing.key\nsudo service vpnd start",
		before: "rm -r /etc/systemd/system/vpnd.service.d; systemctl daemon-reload; cp /etc/vpnd/sealing.key . && service vpnd stop && rm /etc/vpnd/sealing.key"},
	{text: "vpnctl time reset", types: "y\n"},
	{text: "apt remove vpnd", types: "y\n"},
	{text: "apt purge vpnd", before: "apt-get install -y -q /root/vpnd_*.deb </dev/null", types: "y\n"},
	{text: "set -eu\nvpnctl policy check policy.hujson\n", test: "cmd/vpnctl/pipeline_test.go"},
	{text: "set -eu\nnewest=$(vpnctl -o json policy history", test: "cmd/vpnctl/pipeline_test.go"},
	{text: composeGuide, test: "test/e2e/container_test.go"},
	{text: "make release", test: "packaging/release"}, // which test/same runs twice
	{text: "docker load", test: "test/e2e/container_test.go"},
	{text: "docker compose", test: "test/e2e/container_test.go"},
	{text: "make test", test: "-"},
	{text: "make check", test: "-"},
	{text: "make mutate", test: "-"},
	{text: "make fuzz", test: "-"},
	{text: "make bench", test: "-"},
	{text: "make generate", test: "test/run"},
}

// guideClone is what is typed in a clone of the repository, while `make run` runs.
var guideClone = []guide{
	{text: "make run"},
	{text: "sudo make run"}, // begins anew, on what the other has left
	{text: "make help"},
	{text: "bin/vpnctl user add bob\nbin/vpnctl device ls"},
	{text: "bin/vpnctl session end bob/phone"},
	{text: `bin/vpnctl policy edit                             # shows who gains and loses what, then asks
bin/vpnctl group add ops bob                       # once the policy has a group:ops
bin/vpnctl policy explain alice/phone app:8080     # why, until when, and what the kernel says`,
		before: `printf '%s\n' '#!/bin/sh' 'sed -i "s/\"groups\": {/&\"group:ops\": [],/" "$1"' >editor; chmod +x editor; export EDITOR=$PWD/editor`, types: "y\ny\n"},
}

// script is a step as a file for sh. A person who is asked sits at a terminal.
func (g guide) script() string { return "set -e\n" + g.before + "\n" + g.text + "\n" }

func (g guide) run(t *testing.T, do func(args ...string) (string, error), file string) {
	t.Helper()
	args := []string{"timeout", "60", "sh", file}
	if g.types != "" {
		args = []string{"sh", "-c", fmt.Sprintf("printf %q | timeout 60 script -qec 'sh %s' /dev/null", g.types, file)}
	}
	out, err := do(args...)
	if err != nil {
		t.Errorf("%s\n%v\n%s", g.text, err, tail(out, 3000))
		return
	}
	t.Logf("%s\n%s", g.text, tail(out, 3000))
}

// guideOnServer runs guideServer on a machine with systemd, and asks for help about the
// commands that are only named.
func guideOnServer(t *testing.T, named []string) {
	w := newWorld(t, "linux")
	m := w.newMachine(w.gw, "guide")
	m.logOnFailure()
	// The pages say amd64; the package of another machine has another name.
	if runtime.GOARCH != "amd64" {
		t.Skipf("the pages install vpnd_*_amd64.deb, this is %s", runtime.GOARCH)
	}
	m.put(deb(t, ""), "/root/"+filepath.Base(deb(t, "")))
	page, err := os.ReadFile(project(t, "docs/install.md"))
	if err != nil {
		t.Fatal(err)
	}
	unit := regexp.MustCompile("(?ms)^```ini\n(.*?)^```$").FindSubmatch(page)
	if unit == nil {
		t.Fatal("docs/install.md has no drop-in for the unit")
	}
	for name, text := range map[string]string{"drop-in": string(unit[1]), "editor": "#!/bin/sh\nsed -i '2r /root/drop-in' \"$1\"\n"} {
		if err := os.WriteFile(filepath.Join(m.root, "root", name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range guideServer {
		if g.test != "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(m.root, "root/step.sh"), []byte("cd /root\n"+g.script()), 0o644); err != nil {
			t.Fatal(err)
		}
		if g.text == "apt remove vpnd" {
			for _, s := range named {
				if out, err := m.try("sh", "-c", s+" --help"); err != nil || !strings.Contains(out, "Usage: "+options.ReplaceAllString(s, "")) {
					t.Errorf("a page names %s: %v\n%s", s, err, tail(out, 300))
				}
			}
		}
		g.run(t, m.try, "/root/step.sh")
	}
}

// guideInClone runs guideClone in a copy of the tree, as root.
func guideInClone(t *testing.T) {
	w := newWorld(t, "linux")
	clone := w.path("clone")
	must(t, "sh", "-c", fmt.Sprintf("mkdir %[2]s && cd %[1]s && git ls-files -z | xargs -0 cp --parents -t %[2]s", project(t, "."), clone))
	env := []string{"HOME=" + w.path("home"), "VPND_INTERFACE=" + w.iface, "VPND_DATA=" + w.path("data"), "VPND_NETWORK=" + network,
		"PROTECTED_APP_DATA=" + w.path("files"), "VPND_CONTROL=" + w.path("run/control.sock"), "VPNCTL_SOCKET=" + w.path("run/control.sock"), "VPND_SEALING_KEY=" + w.path("sealing.key")}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOFLAGS"} {
		env = append(env, name+"="+strings.TrimSpace(must(t, "go", "env", name)))
	}
	// For root, who runs this, sudo changes nothing but the environment, in which Go and this world's
	// places are named.
	if err := os.Mkdir(w.path("sudo"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path("sudo/sudo"), []byte("#!/bin/sh\nexec \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	env = append(env, "PATH="+w.path("sudo")+":"+os.Getenv("PATH"))
	begin := func(text string) *process { return w.gw.start(env, "sh", "-c", "cd "+clone+" && exec "+text) }
	// Ctrl-C reaches what make has started, too.
	interrupt := func(p *process) {
		t.Helper()
		must(t, "pkill", "-INT", "-P", fmt.Sprint(p.cmd.Process.Pid))
		p.stop(t, syscall.SIGINT)
	}
	run := begin(guideClone[0].text)
	var link string
	eventually(t, 10*time.Minute, "make run invites the first person", func() error {
		select {
		case <-run.done:
			t.Fatalf("it has ended:\n%s", run.log)
		default:
		}
		if link = regexp.MustCompile(`https://\S+/enroll#\S+`).FindString(run.log.String()); link == "" {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	alice := &client{host: w.public("phone"), w: w, device: "phone"}
	alice.enrol(link)
	alice.up()
	alice.signIn()
	interrupt(run)
	run = begin(guideClone[1].text)
	eventually(t, 2*time.Minute, "sudo make run is ready", func() error {
		if out := run.log.String(); !strings.Contains(out, "is ready") || !strings.Contains(out, "answering") {
			return fmt.Errorf("not yet: %s", out)
		}
		return nil
	})
	do := func(args ...string) (string, error) {
		return w.gw.try(append(append([]string{"env"}, env...), args...)...)
	}
	for _, g := range guideClone[2:] {
		if err := os.WriteFile(w.path("step.sh"), []byte("cd "+clone+"\n"+g.script()), 0o644); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(g.text, "session end bob/phone") {
			out, err := do("sh", "-c", "cd "+clone+" && bin/vpnctl user invite bob")
			if err != nil {
				t.Fatal(err)
			}
			bob := &client{host: w.public("bob"), w: w, device: "phone"}
			bob.enrol(regexp.MustCompile(`https://\S+/enroll#\S+`).FindString(out))
			bob.up()
			bob.signIn()
		}
		g.run(t, do, w.path("step.sh"))
	}
	interrupt(run)
}
