package words

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	for _, tt := range []struct{ accept, cookie, want string }{
		{"", "", "en"},
		{"fr", "", "fr"},
		{"fr-CA,fr;q=0.9,en;q=0.8", "", "fr"},
		{"en-GB,en;q=0.9,fr;q=0.8", "", "en"},
		{"fr;q=0.1,en;q=0.9", "", "en"},
		{"de,fr;q=0.5", "", "fr"}, // what is not offered does not hide what is
		{"de", "", "en"},
		{"*", "", "en"},
		{"fr;q=0", "", "en"},
		{"\x00;;,", "", "en"},
		{strings.Repeat("fr-", 5000), "", "en"},
		{"en", "fr", "fr"}, // what was chosen stays
		{"fr", "en", "en"},
		{"fr", "de", "fr"}, // a cookie that is not ours
		{"fr", "", "fr"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept-Language", tt.accept)
		if tt.cookie != "" {
			r.AddCookie(&http.Cookie{Name: cookie, Value: tt.cookie})
		}
		if got := Choose(r).Code; got != tt.want {
			t.Errorf("Accept-Language %.30q, cookie %q: %s, want %s", tt.accept, tt.cookie, got, tt.want)
		}
	}
}

func TestSwitch(t *testing.T) {
	for _, tt := range []struct {
		target, page, location string
		secure                 bool
	}{
		{"/?lang=fr", "/", "/", false},
		{"/enroll?lang=en", "/enroll", "/enroll", true},
		{"/?next=http%3A%2F%2F10.77.0.1%3A8080%2F&lang=fr", "/", "/?next=http%3A%2F%2F10.77.0.1%3A8080%2F", false},
		{"/", "/", "", false},
		{"/?lang=", "/", "", false},
		{"/?lang=de", "/", "", false},
		{"/?lang=fr%0d%0aX:1", "/", "", false},
	} {
		w := httptest.NewRecorder()
		done := Switch(w, httptest.NewRequest("GET", tt.target, nil), tt.page, tt.secure)
		if done != (tt.location != "") || w.Header().Get("Location") != tt.location {
			t.Errorf("%s: %v, to %q", tt.target, done, w.Header().Get("Location"))
		}
		if !done {
			if len(w.Result().Cookies()) != 0 {
				t.Errorf("%s: a cookie was set", tt.target)
			}
			continue
		}
		c := w.Result().Cookies()
		if w.Code != 303 || len(c) != 1 || !c[0].HttpOnly || c[0].Secure != tt.secure || c[0].Path != "/" || c[0].MaxAge < 30*86400 || c[0].SameSite != http.SameSiteLaxMode {
			t.Errorf("%s: %d, cookies %v", tt.target, w.Code, c)
		}
	}
}

func TestOthers(t *testing.T) {
	o := English().Others("/", map[string][]string{"next": {"http://10.77.0.1:8080/"}, "lang": {"en"}})
	if len(o) != 1 || o[0] != (Other{"fr", "Français", "/?lang=fr&next=http%3A%2F%2F10.77.0.1%3A8080%2F"}) {
		t.Errorf("%+v", o)
	}
}
