package words

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/number"
)

// write writes a parameter as its kind wants it. Refusals carry all of them as strings:
// numbers in decimal, times in RFC 3339, durations as Go writes them.
func (l *Language) write(v any, kind string) (string, error) {
	switch kind {
	case "":
		return fmt.Sprint(v), nil
	case "quoted":
		s := strconv.Quote(fmt.Sprint(v)) // escapes what would move a terminal's cursor
		return l.Text("language.quoted", "text", strings.ReplaceAll(s[1:len(s)-1], `\"`, `"`)), nil
	case "number":
		n, err := strconv.ParseInt(fmt.Sprint(v), 10, 64)
		return l.Number(n), err
	case "size":
		n, err := strconv.ParseInt(fmt.Sprint(v), 10, 64)
		return l.Size(n), err
	case "time", "exactly":
		t, ok := v.(time.Time)
		if !ok {
			var err error
			if t, err = time.Parse(time.RFC3339Nano, fmt.Sprint(v)); err != nil {
				return "", err
			}
		}
		if kind == "exactly" {
			return l.exactly(t), nil
		}
		return l.Time(t), nil
	case "duration":
		d, ok := v.(time.Duration)
		if !ok {
			var err error
			if d, err = time.ParseDuration(fmt.Sprint(v)); err != nil {
				return "", err
			}
		}
		return l.Duration(d), nil
	}
	return "", fmt.Errorf("there is no kind %q", kind)
}

// Number writes a whole number with the language's groups of digits.
func (l *Language) Number(n int64) string { return l.number.Sprint(number.Decimal(n)) }

// Time writes an instant to the minute. It is in UTC and says so, as a server does not know
// where its reader is; the year is left to the context.
func (l *Language) Time(t time.Time) string { return l.instant("time.instant", t) }

// exactly writes an instant to the second, with its year.
func (l *Language) exactly(t time.Time) string { return l.instant("time.exactly", t) }

func (l *Language) instant(id string, t time.Time) string {
	t = t.UTC()
	return l.Text(id, "count", t.Day(), "day", t.Day(), "month", l.Text("time.month_"+strconv.Itoa(int(t.Month()))),
		"year", t.Year(), "date", t.Format(time.DateOnly), "clock", t.Format("15:04"), "exact_clock", t.Format("15:04:05"))
}

// Duration writes a length of time, rounded up to seconds, in its two largest units.
func (l *Language) Duration(d time.Duration) string {
	d = (d + time.Second - 1).Truncate(time.Second)
	var parts []string
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"days", 24 * time.Hour}, {"hours", time.Hour}, {"minutes", time.Minute}, {"seconds", time.Second}} {
		if n := int64(d / unit.size); len(parts) < 2 && (n != 0 || unit.size == time.Second && len(parts) == 0) {
			parts = append(parts, l.Text("time."+unit.name, "count", n))
		}
		d %= unit.size
	}
	return strings.Join(parts, " ")
}

// Size writes a number of bytes in binary units, to one decimal.
func (l *Language) Size(n int64) string {
	units := []string{"b", "kib", "mib", "gib", "tib"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return l.Text("size."+units[i], "n", l.number.Sprint(number.Decimal(f, number.MaxFractionDigits(1))))
}
