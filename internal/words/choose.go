package words

import (
	"net/http"
	"net/url"

	"golang.org/x/text/language"
)

const (
	// cookie keeps what a person chose. Cookies know no ports, so the sign-in page and the
	// protected app on the same address share it.
	cookie     = "vpnd-language"
	cookieLife = 365 * 24 * 60 * 60 // seconds
	// query in a page's address is the choice: a link, which works without scripts.
	query = "lang"
)

var matcher = language.NewMatcher([]language.Tag{language.English, language.French}) // in the order of languages

// Choose is the language to answer a request in: what the person chose, else what her
// browser prefers of those there are, else English.
func Choose(r *http.Request) *Language {
	if c, err := r.Cookie(cookie); err == nil {
		if l := For(c.Value); l.Code == c.Value {
			return l
		}
	}
	// What is no such header is answered in English.
	_, i := language.MatchStrings(matcher, r.Header.Get("Accept-Language"))
	return languages[i]
}

// Switch answers a request that chooses a language, and says whether it was one: the choice
// is kept in a cookie, and the browser sent on to the same page without it in the address.
// page is that page's path, which is not taken from the request.
func Switch(w http.ResponseWriter, r *http.Request, page string, secure bool) bool {
	q := r.URL.Query()
	chosen := q.Get(query)
	if chosen == "" || For(chosen).Code != chosen {
		return false
	}
	http.SetCookie(w, &http.Cookie{
		Name: cookie, Value: chosen, Path: "/", MaxAge: cookieLife,
		HttpOnly: true, Secure: secure, SameSite: http.SameSiteLaxMode,
	})
	q.Del(query)
	w.Header().Set("Location", (&url.URL{Path: page, RawQuery: q.Encode()}).String())
	w.WriteHeader(http.StatusSeeOther)
	return true
}

// Other is a language that a page offers besides its own.
type Other struct{ Code, Name, Address string }

// Others are the links to the same page in other languages; keep is what else stands in
// the query.
func (l *Language) Others(page string, keep url.Values) []Other {
	var out []Other
	for _, o := range languages {
		if o == l {
			continue
		}
		q := url.Values{query: {o.Code}}
		for k, v := range keep {
			if k != query {
				q[k] = v
			}
		}
		out = append(out, Other{Code: o.Code, Name: o.Name(), Address: page + "?" + q.Encode()})
	}
	return out
}
