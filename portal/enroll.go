package portal

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"vpnd/internal/control"
	"vpnd/peers/conf"
)

// browserCookie tells one enrolling browser from another: a pending secret belongs to the
// browser that was shown it. It is no credential: the invitation's token is.
const browserCookie = "__Secure-vpnd-enroll"

// repeated is how long the answer of an enrolment is given again, to the same browser.
const repeated = time.Hour

// browserOf returns the cookie's value, or "" for none or for one that is not ours.
func browserOf(r *http.Request) string {
	c, err := r.Cookie(browserCookie)
	if err != nil {
		return ""
	}
	if b, err := base64.RawURLEncoding.Strict().DecodeString(c.Value); err != nil || len(b) != 32 || len(c.Value) != 43 {
		return ""
	}
	return c.Value
}

// newBrowser makes a value of 256 random bits.
func newBrowser() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

type beginAnswer struct {
	User       string    `json:"user"`
	TOTP       string    `json:"totp,omitempty"` // "enrolled": no secret follows
	OTPAuthURL string    `json:"otpauth_url,omitempty"`
	Secret     string    `json:"secret,omitempty"`
	QRSVG      string    `json:"qr_svg,omitempty"`
	ExpiresAt  time.Time `json:"expires_at"`
}

func (p *public) begin(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Token string `json:"token"`
	}
	if err := decodeJSON(w, r, &in); err != nil {
		return err
	}
	id := browserOf(r)
	if id == "" {
		id = newBrowser()
	}
	e, err := p.Service.EnrolBegin(r.Context(), in.Token, id)
	if err != nil {
		return err
	}
	out := beginAnswer{User: e.User, ExpiresAt: e.Expires.UTC()}
	if e.Enrolled {
		out.TOTP = "enrolled"
	} else {
		out.OTPAuthURL, out.Secret = e.OTPAuthURL, e.Secret
		if out.QRSVG, err = conf.QRSVG(e.OTPAuthURL); err != nil {
			return fmt.Errorf("drawing the authenticator's QR code: %w", err)
		}
	}
	// It lasts as long as the invitation, and as long as the answer is repeated after that: a
	// phone may throw the page out of memory while its owner is in the app store.
	http.SetCookie(w, &http.Cookie{
		Name: browserCookie, Value: id, Path: "/api/v1/enroll", Expires: e.Expires.Add(repeated),
		HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode,
	})
	return writeJSON(w, http.StatusOK, out)
}

type finishAnswer struct {
	Device    string       `json:"device"`
	Addresses []netip.Addr `json:"addresses"`
	Config    string       `json:"config"`
}

// finish answers a repeat as it answered the first time. Where to sign in afterwards is
// in a Link header, so that the body is what the API's table says.
func (p *public) finish(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Token     string `json:"token"`
		Code      string `json:"code"`
		Device    string `json:"device"`
		PublicKey string `json:"public_key"`
	}
	if err := decodeJSON(w, r, &in); err != nil {
		return err
	}
	f, err := p.Service.EnrolFinish(r.Context(), control.FinishRequest{
		Token: in.Token, Browser: browserOf(r), Code: in.Code, Device: in.Device, PublicKey: in.PublicKey,
	})
	if err != nil {
		return err
	}
	if p.Log != nil {
		user, device, _ := strings.Cut(f.Device, "/")
		p.Log.Info("enrolled a device", "user", user, "device", device, "source", r.RemoteAddr)
	}
	if f.PortalURL != "" {
		w.Header().Set("Link", "<"+f.PortalURL+`>; rel="next"`)
	}
	return writeJSON(w, http.StatusCreated, finishAnswer{Device: f.Device, Addresses: f.Addresses, Config: f.Config})
}

func (p *public) status(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Token     string `json:"token"`
		PublicKey string `json:"public_key"`
	}
	if err := decodeJSON(w, r, &in); err != nil {
		return err
	}
	state, err := p.Service.EnrolStatus(r.Context(), in.Token, in.PublicKey)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, struct {
		State string `json:"state"`
	}{state})
}
