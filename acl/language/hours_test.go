package language

import (
	"testing"
	"time"
)

func TestHours(t *testing.T) {
	at := func(s string) time.Time {
		x, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, test := range []struct {
		hours []string
		at    string
		open  bool
		until string // when that changes
	}{
		{[]string{"Mon-Fri 08:00-18:00 UTC"}, "2026-03-04T08:00:00Z", true, "2026-03-04T18:00:00Z"},
		{[]string{"Mon-Fri 08:00-18:00 UTC"}, "2026-03-04T07:59:59Z", false, "2026-03-04T08:00:00Z"},
		{[]string{"Mon-Fri 08:00-18:00 UTC"}, "2026-03-04T18:00:00Z", false, "2026-03-05T08:00:00Z"},
		{[]string{"Mon-Fri 08:00-18:00 UTC"}, "2026-03-06T18:00:00Z", false, "2026-03-09T08:00:00Z"},
		{[]string{"mon,WED 08:00-18:00 Europe/Berlin"}, "2026-03-04T07:00:00Z", true, "2026-03-04T17:00:00Z"},
		// Past midnight, also from Sunday to Monday, also where another window follows on.
		{[]string{"Fri 22:00-06:00 UTC"}, "2026-03-07T05:59:59Z", true, "2026-03-07T06:00:00Z"},
		{[]string{"Sun 22:00-06:00 UTC"}, "2026-03-08T23:00:00Z", true, "2026-03-09T06:00:00Z"},
		{[]string{"Sun 22:00-06:00 UTC", "Mon 06:00-07:00 UTC"}, "2026-03-08T23:00:00Z", true, "2026-03-09T07:00:00Z"},
		{[]string{"Sat-Mon 00:00-24:00 UTC"}, "2026-03-07T00:00:00Z", true, "2026-03-10T00:00:00Z"},
		{[]string{"Sat-Mon 00:00-24:00 UTC"}, "2026-03-10T00:00:00Z", false, "2026-03-14T00:00:00Z"},
		// Berlin's clock skips 02:00-03:00 on 2026-03-29 and shows it twice on 2026-10-25.
		{[]string{"Sun 01:00-04:00 Europe/Berlin"}, "2026-03-29T00:00:00Z", true, "2026-03-29T02:00:00Z"},
		{[]string{"Sun 01:00-02:30 Europe/Berlin"}, "2026-03-29T00:30:00Z", true, "2026-03-29T01:00:00Z"},
		{[]string{"Sun 02:00-02:30 Europe/Berlin"}, "2026-03-29T00:30:00Z", false, "2026-04-05T00:00:00Z"},
		{[]string{"Sun 02:00-02:30 Europe/Berlin"}, "2026-10-25T00:00:00Z", true, "2026-10-25T00:30:00Z"},
		{[]string{"Sun 02:00-02:30 Europe/Berlin"}, "2026-10-25T00:30:00Z", false, "2026-10-25T01:00:00Z"},
		{[]string{"Sun 01:00-04:00 Europe/Berlin"}, "2026-10-24T23:00:00Z", true, "2026-10-25T03:00:00Z"},
		// Half an hour of daylight saving.
		{[]string{"Sun 01:00-04:00 Australia/Lord_Howe"}, "2026-04-04T14:00:00Z", true, "2026-04-04T17:30:00Z"},
	} {
		zones := map[string]*time.Location{}
		var all []window
		var zone *time.Location
		for _, s := range test.hours {
			z, w, err := parseHours(s, zones)
			if err != nil {
				t.Fatal(err)
			}
			zone, all = z, append(all, w...)
		}
		h := newHours(zone, all)
		open, until := h.Change(at(test.at))
		if open != test.open || !until.Equal(at(test.until)) {
			t.Errorf("%q at %s: open %v until %s, want %v until %s", test.hours, test.at, open, until, test.open, test.until)
		}
	}
	zone, all, err := parseHours("daily 00:00-24:00 UTC", map[string]*time.Location{})
	if err != nil || newHours(zone, all) != nil {
		t.Error("the whole week is no restriction", err)
	}
}

func TestHoursText(t *testing.T) {
	for _, test := range []struct {
		hours []string
		want  string
	}{
		{[]string{"mon-FRI 08:00-18:00 Europe/Berlin"}, "Mon-Fri 08:00-18:00 Europe/Berlin"},
		{[]string{"daily 08:00-18:00 UTC"}, "daily 08:00-18:00 UTC"},
		{[]string{"Mon,Tue,Thu-Sun 08:00-18:00 UTC", "Wed 08:00-12:00 UTC"}, "Mon,Tue,Thu-Sun 08:00-18:00, Wed 08:00-12:00 UTC"},
		{[]string{"Mon,Thu 22:00-06:00 UTC"}, "Mon,Thu 22:00-06:00 UTC"},
		{[]string{"Sun 22:00-06:00 UTC"}, "Mon 00:00-06:00, Sun 22:00-24:00 UTC"},
		// Windows that run together into more than a day.
		{[]string{"Mon-Tue,Fri-Sat 00:00-24:00 UTC"}, "Mon 00:00-Tue 24:00, Fri 00:00-Sat 24:00 UTC"},
		{[]string{"Mon 08:00-24:00 UTC", "Tue 00:00-08:00 UTC"}, "Mon 08:00-Tue 08:00 UTC"},
	} {
		var all []window
		var zone *time.Location
		for _, s := range test.hours {
			z, w, err := parseHours(s, map[string]*time.Location{})
			if err != nil {
				t.Fatal(err)
			}
			zone, all = z, append(all, w...)
		}
		if got := newHours(zone, all).String(); got != test.want {
			t.Errorf("%q is written %q, want %q", test.hours, got, test.want)
		}
	}
}

// The names of time zones have letters up to the last, digits and signs.
func TestZoneNames(t *testing.T) {
	for _, name := range []string{"Europe/Zurich", "Africa/Brazzaville", "America/Argentina/Buenos_Aires", "Asia/Aqtau", "Etc/GMT0", "Etc/GMT+9", "Etc/GMT-1"} {
		if _, err := Parse([]byte(`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["*"], "hours": ["Mon 08:00-18:00 ` + name + `"]}]}`)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
