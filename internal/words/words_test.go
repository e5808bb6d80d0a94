package words

import (
	"html/template"
	"testing"
	"time"
)

func TestText(t *testing.T) {
	if got := For("fr").Text("enroll.hello", "user", "<alice>"); got != "Bonjour <alice>." {
		t.Errorf("as text: %q", got)
	}
	if got := For("fr").HTML("enroll.hello", "user", "<alice>"); got != "Bonjour &lt;alice&gt;." {
		t.Errorf("as HTML: %q", got)
	}
	if got := English().HTML("session.hello", "user", template.HTML("<i>a</i>")); got != "Hello, <b><i>a</i></b>. Your tunnel is on; a code from your authenticator opens the rest." {
		t.Errorf("mark-up of the caller: %q", got)
	}
	// A value is never read as a text: what looks like a parameter in it stays.
	if got := English().Text("enroll.hello", "user", "{user}"); got != "Hello, {user}." {
		t.Errorf("a value with braces: %q", got)
	}
	// A fault of the build shows the id.
	if got := English().Text("no.such"); got != "no.such" {
		t.Errorf("no such text: %q", got)
	}
	if got := English().Text("enroll.hello"); got != "enroll.hello" {
		t.Errorf("no parameter: %q", got)
	}
}

func TestRefusal(t *testing.T) {
	if got := English().Refusal("method_not_allowed", map[string]string{"method": "PUT"}); got != "This address does not take the method PUT." {
		t.Error(got)
	}
	if got := For("fr").Refusal("from_the_future", nil); got != "Refusé\u00a0: from_the_future. Votre administrateur peut se renseigner sur ce mot." {
		t.Error(got)
	}
}

func TestFor(t *testing.T) {
	for code, want := range map[string]string{"en": "en", "fr": "fr", "": "en", "de": "en", "FR": "en"} {
		if got := For(code).Code; got != want {
			t.Errorf("For(%q) is %s", code, got)
		}
	}
}

func TestFormats(t *testing.T) {
	first := time.Date(2030, 8, 1, 9, 5, 0, 0, time.FixedZone("", 2*3600))
	last := time.Date(2030, 12, 31, 23, 59, 59, 0, time.UTC)
	for _, tt := range []struct{ got, en, fr string }{
		{"time", "1 August, 07:05 UTC", "1er\u00a0août à 07:05 UTC"},
		{"last", "31 December, 23:59 UTC", "31\u00a0décembre à 23:59 UTC"},
		{"number", "1,234,567", "1\u00a0234\u00a0567"},
		{"size", "1.5 KiB", "1,5\u00a0Kio"},
		{"gib", "1 GiB", "1\u00a0Gio"},
		{"bytes", "999 B", "999\u00a0o"},
		{"second", "1 second", "1\u00a0seconde"},
		{"wait", "1 minute 30 seconds", "1\u00a0minute 30\u00a0secondes"},
		{"minutes", "15 minutes", "15\u00a0minutes"},
		{"days", "2 days", "2\u00a0jours"},
		{"day", "1 day", "1\u00a0jour"},
		{"hours", "1 day 23 hours", "1\u00a0jour 23\u00a0heures"},
		{"fraction", "17 seconds", "17\u00a0secondes"},
		{"none", "0 seconds", "0\u00a0seconde"},
		{"million", "1,000,000 seconds", "1\u00a0000\u00a0000 de secondes"},
	} {
		for _, l := range All() {
			got := map[string]func() string{
				"time": func() string { return l.Time(first) }, "last": func() string { return l.Time(last) },
				"number": func() string { return l.Number(1234567) },
				"size":   func() string { return l.Size(1536) }, "gib": func() string { return l.Size(1 << 30) }, "bytes": func() string { return l.Size(999) },
				"second": func() string { return l.Duration(time.Second) }, "wait": func() string { return l.Duration(90 * time.Second) },
				"minutes": func() string { return l.Duration(15 * time.Minute) }, "days": func() string { return l.Duration(48 * time.Hour) },
				"day": func() string { return l.Duration(24 * time.Hour) }, "hours": func() string { return l.Duration(47 * time.Hour) },
				"fraction": func() string { return l.Duration(16500 * time.Millisecond) }, "none": func() string { return l.Duration(0) },
				"million": func() string { return l.Text("time.seconds", "count", 1_000_000) },
			}[tt.got]()
			want := tt.en
			if l.Code == "fr" {
				want = tt.fr
			}
			if got != want {
				t.Errorf("%s in %s: %q, want %q", tt.got, l.Name(), got, want)
			}
		}
	}
}
