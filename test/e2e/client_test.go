package e2e

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// client is a person's device: a host on the public network with the stock WireGuard
// tools, an authenticator (oathtool) and a browser of sorts (curl).
type client struct {
	*host
	w      *world
	user   string
	device string
	secret string // of the authenticator, base32
	conf   string // wg-quick text
	iface  string
	addr4  string
	addr6  string
	step   int64 // the last TOTP step that was used
	wg     *process
}

// person adds a user and gives her a device that is enrolled and connected.
func (w *world) person(user, device string) *client {
	w.t.Helper()
	var added struct {
		Invitation struct{ Link string } `json:"invitation"`
	}
	w.vpnctlJSON(&added, "user", "add", user)
	c := &client{host: w.public(device), w: w, user: user, device: device}
	c.enrol(added.Invitation.Link)
	c.up()
	return c
}

// api sends JSON to the public portal with curl, as a browser would, and gives the
// status and the answer. Cookies are kept.
func (c *client) api(path string, body, answer any) int {
	c.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	jar := "/run/jar-" + c.name
	out, err := c.tryInput(string(b), "curl", "-sS", "-k", "--max-time", "30", "-b", jar, "-c", jar,
		"-H", "Origin: https://"+gwPublic4+":8443", "-H", "Content-Type: application/json",
		"-w", "\n%{http_code}", "--data-binary", "@-", "https://"+gwPublic4+":8443"+path)
	if err != nil {
		c.t.Fatal(err)
	}
	return split(c.t, out, answer)
}

// split takes an answer and the status code in its last line apart.
func split(t *testing.T, out string, answer any) int {
	t.Helper()
	i := strings.LastIndex(out, "\n")
	var status int
	if _, err := fmt.Sscan(out[i+1:], &status); err != nil {
		t.Fatalf("no status in %q", out)
	}
	if answer != nil && i > 0 {
		if err := json.Unmarshal([]byte(out[:i]), answer); err != nil {
			t.Fatalf("%v in %q", err, out)
		}
	}
	return status
}

// apiError is the portal's.
type apiError struct {
	Error struct{ Code, Message string }
}

// enrol goes through the portal's API with a link.
func (c *client) enrol(link string) {
	c.t.Helper()
	_, token, ok := strings.Cut(link, "#")
	if !ok {
		c.t.Fatalf("no token in the link %q", link)
	}
	var begin struct {
		User, Secret, TOTP string
		apiError
	}
	if s := c.api("/api/v1/enroll/begin", map[string]string{"token": token}, &begin); s != 200 {
		c.t.Fatalf("enroll/begin: %d %+v", s, begin)
	}
	if begin.Secret != "" {
		c.secret = begin.Secret
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	var done struct {
		Device    string
		Addresses []string
		Config    string
		apiError
	}
	if s := c.api("/api/v1/enroll/finish", map[string]string{
		"token": token, "code": c.code(), "device": c.device, "public_key": b64(key.PublicKey().Bytes()),
	}, &done); s != 201 {
		c.t.Fatalf("enroll/finish: %d %+v", s, done)
	}
	c.setConf(strings.Replace(done.Config, "[Interface]\n", "[Interface]\nPrivateKey = "+b64(key.Bytes())+"\n", 1))
}

// setConf takes a finished config over.
func (c *client) setConf(conf string) {
	c.t.Helper()
	c.conf = conf
	for line := range strings.Lines(conf) {
		if v, ok := strings.CutPrefix(line, "Address = "); ok {
			for a := range strings.SplitSeq(strings.TrimSpace(v), ",") {
				a, _, _ = strings.Cut(strings.TrimSpace(a), "/")
				if strings.Contains(a, ":") {
					c.addr6 = a
				} else {
					c.addr4 = a
				}
			}
		}
	}
	if c.addr4 == "" || c.addr6 == "" {
		c.t.Fatalf("the config has no dual-stack addresses:\n%s", conf)
	}
}

// code gives the next one-time code that was not used yet: the step before the present
// one first, so that three sign-ins need no waiting.
func (c *client) code() string {
	c.t.Helper()
	oldest := time.Now().Add(4*time.Second*slow).Unix()/30 - 1 // it must still count when it arrives
	c.step = max(c.step, oldest-1)
	c.step++
	if wait := time.Until(time.Unix((c.step-1)*30, 0)); wait > 0 {
		time.Sleep(wait) // the step is not within the window yet
	}
	return c.codeAt(c.step)
}

func (c *client) codeAt(step int64) string {
	c.t.Helper()
	out := must(c.t, "oathtool", "--totp", "-b", "-N", fmt.Sprintf("@%d", step*30), c.secret)
	return strings.TrimSpace(out)
}

// up brings the tunnel up with Debian's wireguard-go and wg, as wg-quick does.
func (c *client) up() {
	c.t.Helper()
	c.iface = fmt.Sprintf("wg%d%s", c.w.id, c.host.name[:1]) + fmt.Sprint(c.w.seen)
	if len(c.iface) > 15 {
		c.iface = c.iface[:15]
	}
	c.wg = c.start([]string{"WG_PROCESS_FOREGROUND=1"}, "wireguard-go", "-f", c.iface)
	eventually(c.t, 10*time.Second, "wireguard-go runs", func() error {
		_, err := c.try("ip", "link", "show", c.iface)
		if err != nil {
			return err
		}
		_, err = os.Stat("/run/wireguard/" + c.iface + ".sock")
		return err
	})
	conf := "/run/" + c.iface + ".conf"
	if err := os.WriteFile(conf, []byte(c.conf), 0o600); err != nil {
		c.t.Fatal(err)
	}
	stripped := must(c.t, "wg-quick", "strip", conf)
	if err := os.WriteFile(conf+".wg", []byte(stripped), 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.run("wg", "setconf", c.iface, conf+".wg")
	c.run("ip", "link", "set", c.iface, "mtu", "1420", "up")
	c.host.addr(c.iface, c.addr4+"/32")
	c.host.addr(c.iface, c.addr6+"/128")
	for line := range strings.Lines(c.conf) {
		if v, ok := strings.CutPrefix(line, "AllowedIPs = "); ok {
			for p := range strings.SplitSeq(strings.TrimSpace(v), ",") {
				c.run("ip", "route", "replace", strings.TrimSpace(p), "dev", c.iface)
			}
		}
	}
}

// shakeHands makes the client begin anew at once, where its own timers would take up to 15 s
// to notice that the gateway has forgotten the handshake.
func (c *client) shakeHands() {
	c.t.Helper()
	c.run("wg", "setconf", c.iface, "/run/"+c.iface+".conf.wg")
}

// tunnel sends a request to the portal inside the tunnel.
func (c *client) tunnel(method, path string, body, answer any) int {
	c.t.Helper()
	args := []string{"curl", "-sS", "--max-time", "30", "-X", method, "-H", "Origin: http://" + tunnel4, "-w", "\n%{http_code}"}
	input := ""
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			c.t.Fatal(err)
		}
		input = string(b)
		args = append(args, "-H", "Content-Type: application/json", "--data-binary", "@-")
	}
	out, err := c.tryInput(input, append(args, "http://"+tunnel4+path)...)
	if err != nil {
		c.t.Fatal(err)
	}
	return split(c.t, out, answer)
}

// session is what the tunnel's portal says.
type session struct {
	User, Device, State string
	Expires             time.Time `json:"expires_at"`
	Reaches             []struct {
		Name, Address string
		Ports         []string
	}
	apiError
}

// signIn gives a code; it fails the test unless that opens the session.
func (c *client) signIn() session {
	c.t.Helper()
	var s session
	if status := c.tunnel("POST", "/api/v1/session", map[string]string{"code": c.code()}, &s); status != 200 || s.State != "active" {
		c.t.Fatalf("signing in: %d %+v", status, s)
	}
	return s
}

// signOut ends the session.
func (c *client) signOut() {
	c.t.Helper()
	if status := c.tunnel("DELETE", "/api/v1/session", nil, nil); status != 204 {
		c.t.Fatalf("signing out: %d", status)
	}
}

// get fetches a URL without following redirects: status, body and where it leads.
func (c *client) get(url string, more ...string) (status int, body, location string, err error) {
	args := append([]string{"curl", "-sS", "--max-time", "5", "-w", "\n%{redirect_url}\n%{http_code}"}, more...)
	out, err := c.try(append(args, url)...)
	if err != nil {
		return 0, out, "", err
	}
	lines := strings.Split(out, "\n")
	n := len(lines)
	fmt.Sscan(lines[n-1], &status)
	return status, strings.Join(lines[:n-2], "\n"), lines[n-2], nil
}
