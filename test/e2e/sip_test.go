package e2e

import (
	"strings"
	"syscall"
	"time"
)

// sipScenarios adds SIPp's own scenarios to files, in which one end plays a second of sound.
func (w *world) sipScenarios(dir string, files map[string]string) {
	w.t.Helper()
	files["silence"] = strings.Repeat("\xd5", 8000) // a second of G.711 A-law
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
}

// call calls the SIP server and says whether media come from it: those that the device sends and
// the server returns to where they came from, or those that the server sends by itself to the
// address that the device names.
func (e ends) call(returned bool) func(time.Duration) string {
	return func(time.Duration) string {
		server := []string{"sipp", "-sf", e.p.dir + "/uas.xml", "-i", e.server, "-p", "5060", "-m", "1", "-nostdin"}
		caller := []string{"sipp", "-sn", "uac"}
		if returned {
			server = []string{"sipp", "-sn", "uas", "-i", e.server, "-p", "5060", "-rtp_echo", "-mp", "6000", "-m", "1", "-nostdin"}
			caller = []string{"sipp", "-sf", e.p.dir + "/uac.xml"}
		}
		s := e.w.lan.start(nil, server...)
		defer s.stop(e.t, syscall.SIGKILL)
		media := e.start(nil, "tcpdump", "-n", "-l", "-i", e.iface, "--immediate-mode", "udp and src host "+e.server+" and not src port 5060 and dst portrange 5000-32767") // not what the other protocols get
		ready := func() bool {
			listening, _ := e.w.lan.try("ss", "-Hlun", "src", e.host()+":5060")
			return listening != "" && strings.Contains(media.log.String(), "listening on")
		}
		for end := time.Now().Add(10 * time.Second * slow); !ready(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				return "neither: SIPp or tcpdump did not start\n" + tail(s.log.String(), 300) + tail(media.log.String(), 300)
			}
		}
		_, err := e.try(append(caller, "-i", e.device, "-p", "5070", "-m", "1", "-d", "1000", "-timeout", "8s", "-timeout_error", "-nostdin", e.host()+":5060")...)
		media.stop(e.t, syscall.SIGINT)
		if err != nil {
			return "neither: the call failed: " + tail(err.Error(), 300) + "\n" + tail(s.log.String(), 600)
		}
		if n := strings.Count(media.log.String(), " "+e.server+"."); n < 5 {
			return "no"
		}
		return "yes"
	}
}
