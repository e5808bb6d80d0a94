package portal

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"vpnd/internal/control"
	"vpnd/internal/words"
)

// sessionAnswer is the session as the API gives it.
type sessionAnswer struct {
	User      string        `json:"user"`
	Device    string        `json:"device"`
	State     string        `json:"state"`      // "active" or "required"
	ExpiresAt *time.Time    `json:"expires_at"` // null without a session
	Reaches   []reachAnswer `json:"reaches"`    // what is open now
}

func answerOf(s control.SessionStatus) sessionAnswer {
	out := sessionAnswer{User: s.User, Device: s.Device, State: "required", Reaches: reachAnswers(s.Reaches)}
	if s.Active {
		out.State = "active"
		out.ExpiresAt = utc(s.Expires)
	}
	return out
}

// utc is nil for the zero time.
func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (t *tunnel) session(w http.ResponseWriter, r *http.Request) error {
	from, err := source(r)
	if err != nil {
		return err
	}
	s, err := t.Service.Session(r.Context(), from)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, answerOf(s))
}

func (t *tunnel) signIn(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Code string `json:"code"`
	}
	if err := decodeJSON(w, r, &in); err != nil {
		return err
	}
	from, err := source(r)
	if err != nil {
		return err
	}
	s, err := t.Service.SignIn(r.Context(), from, in.Code)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, answerOf(s))
}

func (t *tunnel) signOut(w http.ResponseWriter, r *http.Request) error {
	from, err := source(r)
	if err != nil {
		return err
	}
	if err := t.Service.SignOut(r.Context(), from); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// sessionView is what the tunnel's page shows.
type sessionView struct {
	User, Device string
	Address      netip.Addr
	Active       bool
	Expires      time.Time
	Open         []reachView
	ByCode       []reachView // a code, or a fresher one, opens these
	Shut         []reachView
	App          string // the app's address, "" unless it is open
	Next         string // where the person wanted to go, "" if nowhere of ours
	NextOpen     bool
}

func (t *tunnel) home(w http.ResponseWriter, r *http.Request) error {
	if words.Switch(w, r, "/", false) {
		return nil
	}
	from, err := source(r)
	if err != nil {
		return err
	}
	s, err := t.Service.Session(r.Context(), from)
	if err != nil {
		return err
	}
	host, _, _ := t.own(r.Host) // the guard has checked it
	v := sessionView{
		User: s.User, Device: strings.TrimPrefix(s.Device, s.User+"/"), Address: from,
		Active: s.Active, Expires: s.Expires.UTC(),
		Next: t.next(r.URL.Query().Get("next")),
	}
	v.Open, v.ByCode, v.Shut = reachViews(s.Reaches)
	describe(v.Open, s.Policy, true)
	describe(v.ByCode, s.Policy, false)
	describe(v.Shut, s.Policy, false)
	for i, o := range v.Open {
		if s.Active && !o.Until.Before(v.Expires.Truncate(time.Second)) {
			v.Open[i].Until = time.Time{} // as the session: said once, above
		}
	}
	app := netip.AddrPortFrom(host, t.AppPort)
	if t.AppPort != 0 && opensTCP(s.Reaches, app) {
		v.App = "http://" + joinHost(host, strconv.Itoa(int(t.AppPort))) + "/"
	}
	v.NextOpen = v.Next != "" && opensTCP(s.Reaches, hostOf(v.Next))
	return writePage(w, r, http.StatusOK, sessionPage, "/", v)
}
