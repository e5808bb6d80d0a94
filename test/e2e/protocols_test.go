package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// protocolTools are the servers of protocols that answer from another port, and SIPp.
var protocolTools = []string{"in.tftpd", "vsftpd", "sipp"}

const protocolPolicy = `{
  "hosts": {"srv": "198.51.100.10"},
  "grants": [
    {"src": ["alice"], "dst": ["srv"], "ip": ["udp:69", "tcp:21", "tcp:30000-30100", "udp:5060", "udp:6000"]},
    %s
  ],
}`

const grantBack = `{"src": ["srv"], "dst": ["alice"], "ip": ["udp:1024-65535", "tcp:1024-65535"]},`

// What docs/policy.md says of protocols that answer from another port, with Debian's servers:
// tftpd-hpa, vsftpd and SIPp, and curl and SIPp as their clients.
func TestAnotherPort(t *testing.T) {
	if onOtherKernel {
		t.Skip("the emulated machine has no such servers")
	}
	both(t, func(t *testing.T, w *world) {
		content := w.protocolServers()
		w.startVpnd()
		w.policy(fmt.Sprintf(protocolPolicy, ""))
		alice := w.person("alice", "phone")
		alice.signIn()

		transfer := func(args ...string) string {
			args = append([]string{"curl", "-sS", "--max-time", "3"}, args...)
			out, err := alice.try(args...)
			if err == nil && out != content {
				t.Errorf("%v: %d bytes, want %d", args, len(out), len(content))
			}
			if err != nil {
				t.Log(err)
				return "no"
			}
			return "yes"
		}
		check := func(when string, another string) {
			t.Helper()
			for _, x := range []struct{ what, got, want string }{
				{"passive FTP", transfer("ftp://" + lan4 + "/file"), "yes"},
				{"active FTP", transfer("--ftp-port", alice.addr4, "--disable-eprt", "ftp://"+lan4+"/file"), another},
				{"TFTP", transfer("tftp://" + lan4 + "/file"), another},
				{"SIP with media that come back to where they came from", alice.call(true), "yes"},
				{"SIP with media from the server alone", alice.call(false), another},
			} {
				if x.got != x.want {
					t.Errorf("%s: %s works: %s, want %s", when, x.what, x.got, x.want)
				}
			}
		}
		check("by default", "no")
		w.policy(fmt.Sprintf(protocolPolicy, grantBack))
		check("with a grant back", "no")
		if w.plane != "linux" {
			return
		}
		w.vpnctl("settings", "set", "--masquerade", "off")
		w.lan.run("ip", "route", "add", "10.77.0.0/16", "via", "198.51.100.1")
		check("not masqueraded, with a grant back", "yes")
		w.policy(fmt.Sprintf(protocolPolicy, ""))
		check("not masqueraded, without a grant back", "no")
	})
}

// protocolServers starts the servers in the private network and gives the content of "file".
func (w *world) protocolServers() string {
	w.t.Helper()
	dir := filepath.Join("/run", fmt.Sprintf("protocols%d", w.id))
	for _, d := range []string{dir, dir + "/empty", dir + "/pub"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	content := strings.Repeat("0123456789abcdef", 2000)
	w.protocols = dir
	conf := `listen=YES
background=NO
anonymous_enable=YES
anon_root=` + dir + `/pub
secure_chroot_dir=` + dir + `/empty
connect_from_port_20=YES
pasv_min_port=30000
pasv_max_port=30100
seccomp_sandbox=NO
`
	files := map[string]string{"pub/file": content, "vsftpd.conf": conf,
		"silence": strings.Repeat("\xd5", 8000)} // a second of G.711 A-law
	// SIPp's own scenarios, in which one end plays that.
	play := `<nop><action><exec rtp_stream="` + dir + `/silence,1,8,PCMA/8000"/></action></nop>`
	for name, at := range map[string]string{"uac": "<pause/>", "uas": `<recv request="BYE">`} {
		text, err := w.lan.try("sipp", "-sd", name)
		if !strings.Contains(text, at) {
			w.t.Fatalf("SIPp's scenario %s has no %s: %v", name, at, err)
		}
		text = strings.Replace(text, at, play+at, 1)
		text = strings.Replace(text, `optional="true"
        rtd="true"
        crlf="true"`, `crlf="true"`, 1) // of the ACK: it comes before a <nop>
		text = strings.Replace(text, "[media_port] RTP/AVP 0", "[rtpstream_audio_port] RTP/AVP 8", 1)
		files[name+".xml"] = strings.Replace(text, "rtpmap:0 PCMU", "rtpmap:8 PCMA", 1)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	w.lan.start(nil, "in.tftpd", "-L", "-u", "nobody", "-s", dir+"/pub")
	w.lan.start(nil, "vsftpd", dir+"/vsftpd.conf")
	return content
}

// call calls the SIP server and says whether media come from it: those that alice sends and the
// server returns to where they came from, or those that the server sends by itself to the
// address that alice names.
func (c *client) call(returned bool) string {
	c.t.Helper()
	dir := c.w.protocols
	server := []string{"sipp", "-sf", dir + "/uas.xml", "-i", lan4, "-p", "5060", "-m", "1", "-nostdin"}
	caller := []string{"sipp", "-sn", "uac"}
	if returned {
		server = []string{"sipp", "-sn", "uas", "-i", lan4, "-p", "5060", "-rtp_echo", "-mp", "6000", "-m", "1", "-nostdin"}
		caller = []string{"sipp", "-sf", dir + "/uac.xml"}
	}
	s := c.w.lan.start(nil, server...)
	defer s.stop(c.t, syscall.SIGKILL)
	eventually(c.t, 5*time.Second, "the SIP server listens", func() error {
		if out := c.w.lan.run("ss", "-Hlun", "sport", "=", ":5060"); out == "" {
			return errors.New("not yet")
		}
		return nil
	})
	media := c.start(nil, "tcpdump", "-n", "-l", "-i", c.iface, "--immediate-mode", "udp and src host "+lan4+" and not src port 5060")
	eventually(c.t, 10*time.Second, "tcpdump listens", func() error {
		if !strings.Contains(media.log.String(), "listening on") {
			return errors.New("not yet")
		}
		return nil
	})
	_, err := c.try(append(caller, "-i", c.addr4, "-p", "5070", "-m", "1", "-d", "1000", "-timeout", "8s", "-timeout_error", "-nostdin", lan4+":5060")...)
	media.stop(c.t, syscall.SIGINT)
	if err != nil {
		return "the call failed: " + tail(err.Error(), 300) + "\n" + tail(s.log.String(), 600)
	}
	if n := strings.Count(media.log.String(), " IP "+lan4); n < 5 {
		return "no"
	}
	return "yes"
}
