package language

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // zones must mean the same where the host has none installed
)

const (
	minutesOfDay  = 24 * 60
	minutesOfWeek = 7 * minutesOfDay
)

// window is a piece of a week, in minutes of wall-clock time since Monday 00:00; end
// is not in it.
type window struct{ Start, End int }

// Hours are recurring weekly windows of one time zone. A window is open while the wall
// clock of the zone shows a time inside it: an hour that the clock skips does not
// exist, one that it shows twice counts twice.
type Hours struct {
	zone    *time.Location
	windows []window // sorted, disjoint, not adjacent
}

var weekdays = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

const hoursForm = `write "Mon-Fri 08:00-18:00 Europe/Berlin"`

// parseHours reads "DAYS HH:MM-HH:MM ZONE". DAYS is a list of days and ranges of days
// with commas between, or "daily". A window that ends before it starts goes on past
// midnight of the days named.
func parseHours(s string, zones map[string]*time.Location) (*time.Location, []window, error) {
	f := strings.Fields(s)
	if len(f) != 3 {
		return nil, nil, faultf(CodeBadHours, "hours need days, times and a time zone: %s", hoursForm)
	}
	days, err := parseDays(f[0])
	if err != nil {
		return nil, nil, err
	}
	from, to, ok := strings.Cut(f[1], "-")
	start, ok1 := parseClock(from)
	end, ok2 := parseClock(to)
	if !ok || !ok1 || !ok2 || start == minutesOfDay {
		return nil, nil, faultf(CodeBadHours, "%q is not a span of time: write 08:00-18:00, from 00:00 to 24:00", f[1])
	}
	if start == end {
		return nil, nil, faultf(CodeBadHours, "%q is empty: for the whole day write 00:00-24:00", f[1])
	}
	if end < start {
		end += minutesOfDay
	}
	zone, err := loadZone(f[2], zones)
	if err != nil {
		return nil, nil, err
	}
	var w []window
	for d, on := range days {
		if on {
			w = append(w, window{d*minutesOfDay + start, d*minutesOfDay + end})
		}
	}
	return zone, w, nil
}

func parseDays(s string) (days [7]bool, err error) {
	if strings.EqualFold(s, "daily") {
		return [7]bool{true, true, true, true, true, true, true}, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		a, b, isRange := strings.Cut(strings.ToLower(part), "-")
		if !isRange {
			b = a
		}
		i, j := slices.Index(weekdays, a), slices.Index(weekdays, b)
		if i < 0 || j < 0 {
			return days, faultf(CodeBadHours, "%q is not a day or a range of days: write Mon, Tue, Wed, Thu, Fri, Sat, Sun, ranges like Mon-Fri, or daily", part)
		}
		for d := i; ; d = (d + 1) % 7 { // Sat-Mon goes round the week's end
			days[d] = true
			if d == j {
				break
			}
		}
	}
	return days, nil
}

// parseClock reads HH:MM as minutes of a day, 24:00 included.
func parseClock(s string) (int, bool) {
	if len(s) != 5 || s[2] != ':' {
		return 0, false
	}
	for _, i := range []int{0, 1, 3, 4} {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	h, m := int(s[0]-'0')*10+int(s[1]-'0'), int(s[3]-'0')*10+int(s[4]-'0')
	if m > 59 || h > 24 || h == 24 && m > 0 {
		return 0, false
	}
	return h*60 + m, true
}

// MaxZones bounds how many time zones one policy names: each is looked up.
const MaxZones = 100

func loadZone(name string, zones map[string]*time.Location) (*time.Location, error) {
	unknown := faultf(CodeBadHours, "%q is not a time zone of the IANA database: write one like Europe/Berlin, America/New_York or UTC", name)
	if z, tried := zones[name]; z != nil {
		return z, nil
	} else if tried {
		return nil, unknown
	}
	// "Local" would mean something else on every node.
	bad := name == "" || name == "Local" || len(name) > 64
	for _, c := range []byte(name) {
		bad = bad || !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/_+-", c) >= 0)
	}
	if len(zones) >= MaxZones {
		return nil, faultf(CodeOverLimit, "more than %d time zones, good and bad: use fewer", MaxZones)
	}
	if bad {
		return nil, unknown
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		zones[name] = nil
		return nil, unknown
	}
	zones[name] = z
	return z, nil
}

// newHours merges windows; nil means always open.
func newHours(zone *time.Location, list []window) *Hours {
	var w []window
	for _, x := range list {
		if x.End > minutesOfWeek { // Sunday night goes on on Monday
			w = append(w, window{x.Start, minutesOfWeek}, window{0, x.End - minutesOfWeek})
		} else {
			w = append(w, x)
		}
	}
	slices.SortFunc(w, func(a, b window) int { return a.Start - b.Start })
	merged := w[:0]
	for _, x := range w {
		if n := len(merged); n > 0 && x.Start <= merged[n-1].End {
			merged[n-1].End = max(merged[n-1].End, x.End)
		} else {
			merged = append(merged, x)
		}
	}
	if len(merged) == 1 && merged[0] == (window{0, minutesOfWeek}) {
		return nil
	}
	return &Hours{zone, merged}
}

// at tells whether a window is open at t, and when the windows or the zone's offset
// next change, whichever comes first.
func (h *Hours) at(t time.Time) (open bool, next time.Time) {
	local := t.In(h.zone)
	hour, minute, second := local.Clock()
	day := (int(local.Weekday()) + 6) % 7 // Monday is 0
	m := day*minutesOfDay + hour*60 + minute
	end := h.windows[0].Start + minutesOfWeek
	for _, w := range h.windows {
		if m < w.Start {
			end = w.Start
			break
		}
		if m < w.End {
			open, end = true, w.End
			break
		}
	}
	into := time.Duration(second)*time.Second + time.Duration(local.Nanosecond())
	next = t.Add(time.Duration(end-m)*time.Minute - into)
	// The wall clock runs evenly only as far as the zone's offset holds.
	if _, bound := local.ZoneBounds(); !bound.IsZero() && bound.Before(next) {
		next = bound
	}
	return open, next
}

// Change tells whether a window is open at t, and when that changes.
func (h *Hours) Change(t time.Time) (open bool, until time.Time) {
	open, until = h.at(t)
	// Changes of offset, and a window that runs over Sunday midnight, are steps on the
	// way; ten are more than any zone has in a week.
	for range 10 {
		o, next := h.at(until)
		if o != open {
			break
		}
		until = next
	}
	return open, until.UTC()
}

// String is the windows as a policy writes them, days of the same times together, in the
// order of the week: "Mon-Fri 08:00-18:00 Europe/Berlin".
func (h *Hours) String() string {
	type times struct{ start, end, alone int } // of the day of its start
	var order []times
	days := map[times][]int{}
	for _, w := range h.windows {
		day := w.Start / minutesOfDay
		t := times{w.Start - day*minutesOfDay, w.End - day*minutesOfDay, 0}
		if t.end-t.start >= minutesOfDay && t.end > minutesOfDay {
			t.alone = 1 + day // a policy's own form has no way to say it, so it names both days
		}
		if days[t] == nil {
			order = append(order, t)
		}
		days[t] = append(days[t], day)
	}
	var b strings.Builder
	for i, t := range order {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %02d:%02d-", daysText(days[t]), t.start/60, t.start%60)
		end := t.end
		if t.alone > 0 {
			last := (end - 1) / minutesOfDay
			fmt.Fprintf(&b, "%s ", dayNames[days[t][0]+last])
			end -= last * minutesOfDay // 24:00 is the day's own end
		} else if end > minutesOfDay {
			end -= minutesOfDay // past midnight
		}
		fmt.Fprintf(&b, "%02d:%02d", end/60, end%60)
	}
	return b.String() + " " + h.zone.String()
}

// daysText writes sorted days as a policy does: "daily", "Mon-Wed,Fri".
func daysText(days []int) string {
	if len(days) == len(dayNames) {
		return "daily"
	}
	var parts []string
	for len(days) > 0 {
		n := 1
		for n < len(days) && days[n] == days[0]+n {
			n++
		}
		switch n {
		case 1, 2:
			for _, d := range days[:n] {
				parts = append(parts, dayNames[d])
			}
		default:
			parts = append(parts, dayNames[days[0]]+"-"+dayNames[days[n-1]])
		}
		days = days[n:]
	}
	return strings.Join(parts, ",")
}

var dayNames = []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}

// DurationText writes a duration without parts that are nothing: "15m", "1h30m".
func DurationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
