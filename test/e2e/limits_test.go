package e2e

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"sync"
	"testing"
	"time"
)

// The portal's TLS: only 1.3, and with the key exchange that holds against quantum computers.
func TestTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "netstack")
	w.startVpnd()
	h := w.public("any")
	dial := func(c *tls.Config) (tls.ConnectionState, error) {
		c.InsecureSkipVerify = true // whose certificate it is, is tested elsewhere
		raw, err := h.dialer(t.Context(), "tcp", gwPublic4+":8443")
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		raw.SetDeadline(time.Now().Add(10 * time.Second * slow))
		conn := tls.Client(raw, c)
		err = conn.Handshake()
		return conn.ConnectionState(), err
	}
	for name, c := range map[string]*tls.Config{
		"hybrid only": {CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}},
		"Go's own":    {},
	} {
		s, err := dial(c)
		if err != nil || s.CurveID != tls.X25519MLKEM768 || s.Version != tls.VersionTLS13 {
			t.Errorf("%s: version %x, key exchange %v, %v", name, s.Version, s.CurveID, err)
		}
	}
	if s, err := dial(&tls.Config{MaxVersion: tls.VersionTLS12}); err == nil {
		t.Errorf("TLS 1.2 is accepted: %x", s.Version)
	}
}

// client is a Go client that dials from the host, for what curl is too slow for.
func (h *host) client() *http.Client {
	return &http.Client{Timeout: time.Minute * slow, Transport: &http.Transport{
		MaxConnsPerHost: 200,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return h.dialer(ctx, network, addr)
		},
	}}
}

// Of 100 browsers that redeem one invitation at the same moment, exactly one gets a device.
func TestOneInvitationOneDevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "netstack")
	w.startVpnd()
	alice := w.person("alice", "phone") // she has an authenticator from here on
	var invited struct {
		Invitation struct{ Link string } `json:"invitation"`
	}
	w.vpnctlJSON(&invited, "user", "invite", "alice")
	link := invited.Invitation.Link
	if link == "" {
		var flat struct{ Link string }
		w.vpnctlJSON(&flat, "user", "invite", "alice")
		link = flat.Link
	}
	_, token, ok := strings.Cut(link, "#")
	if !ok {
		t.Fatalf("no token in %q", link)
	}
	const origin = "https://" + gwPublic4 + ":8443"
	// Five hosts, since one address may ask only so often.
	var clients []*http.Client
	for i := range 5 {
		clients = append(clients, w.public(fmt.Sprintf("b%d", i)).client())
	}
	code := alice.code()
	start := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	counts := map[string]int{}
	for i := range 100 {
		wg.Go(func() {
			key, err := ecdh.X25519().GenerateKey(rand.Reader)
			if err != nil {
				t.Error(err)
				return
			}
			jar, err := cookiejar.New(nil)
			if err != nil {
				t.Error(err)
				return
			}
			c := *clients[i%len(clients)]
			c.Jar = jar
			<-start
			var answer struct {
				Device string
				apiError
			}
			status, err := post(t.Context(), &c, origin, "/api/v1/enroll/finish", map[string]string{"token": token, "code": code, "device": fmt.Sprintf("laptop%d", i),
				"public_key": base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())}, &answer)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			counts[fmt.Sprint(status, " ", answer.Error.Code)]++
			mu.Unlock()
		})
	}
	close(start)
	wg.Wait()
	t.Log(counts)
	if counts["201 "] != 1 {
		t.Errorf("of 100 redeemers %d succeeded: %v", counts["201 "], counts)
	}
	for answer := range counts {
		if answer != "201 " && !strings.HasPrefix(answer, "4") {
			t.Errorf("an answer was %s", answer)
		}
		if strings.Contains(answer, "rate") {
			t.Errorf("some were turned away before they redeemed: %s", answer)
		}
	}
	var u struct {
		User struct {
			Devices  []string
			Failures int
		}
	}
	w.vpnctlJSON(&u, "user", "show", "alice")
	if len(u.User.Devices) != 2 || u.User.Failures != 0 {
		t.Errorf("alice has %+v, want her phone and one laptop, and no failure", u.User)
	}
}

// Of 1,000 wrong codes at the same moment exactly five are evaluated; then right and wrong
// get the same answer, until an administrator lifts the lock.
func TestThousandWrongCodes(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.startVpnd()
		alice := w.person("alice", "phone")
		c := alice.host.client()
		right := alice.code()
		wrong := "000000"
		for s := alice.step - 3; s <= alice.step+4; s++ {
			if alice.codeAt(s) == wrong {
				wrong = "000001"
			}
		}
		try := func(code string) string {
			var answer apiError
			status, err := post(t.Context(), c, "http://"+tunnel4, "/api/v1/session", map[string]string{"code": code}, &answer)
			if err != nil {
				t.Error(err)
			}
			return fmt.Sprint(status, " ", answer.Error.Code)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		counts := map[string]int{}
		for range 1000 {
			wg.Go(func() {
				a := try(wrong)
				mu.Lock()
				counts[a]++
				mu.Unlock()
			})
		}
		wg.Wait()
		t.Log(counts)
		if counts["401 code_invalid"] != 5 || counts["429 locked"] != 995 {
			t.Errorf("1,000 wrong codes were answered %v", counts)
		}
		var u struct {
			User struct {
				LockedUntil time.Time `json:"locked_until"`
			}
		}
		w.vpnctlJSON(&u, "user", "show", "alice")
		if out := w.vpnctl("audit", "-n", "5000"); strings.Count(out, "code.wrong")+strings.Count(out, "user.lock") != 5 { // the fifth is in the lock
			t.Errorf("not five evaluated codes in the audit log:\n%s", tail(out, 3000))
		}
		if left := time.Until(u.User.LockedUntil); left < 14*time.Minute || left > 15*time.Minute {
			t.Errorf("the lock ends in %v, want 15 minutes", left)
		}
		if a, b := try(right), try(wrong); a != "429 locked" || b != a {
			t.Errorf("while locked: right code %q, wrong code %q", a, b)
		}
		w.vpnctl("user", "unlock", "alice")
		if a := try(right); !strings.HasPrefix(a, "200") {
			t.Errorf("after the lock was lifted: %s", a)
		}
	})
}
