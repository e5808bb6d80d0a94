package main

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// length says how long d is, in the one or two units that matter.
func length(d time.Duration) string {
	d = d.Abs()
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 10*time.Minute:
		return two(d, time.Minute, "min", time.Second, "s")
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 10*time.Hour:
		return two(d, time.Hour, "h", time.Minute, "min")
	case d < 2*day:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d/day))
}

func two(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	s := fmt.Sprintf("%d %s", d/big, bigName)
	if rest := d % big / small; rest > 0 {
		s += fmt.Sprintf(" %d %s", rest, smallName)
	}
	return s
}

// relative says where t lies: "in 47 h", "3 min ago".
func (u *ui) relative(t time.Time) string {
	d := t.Sub(u.now())
	switch {
	case d.Abs() < time.Second:
		return "now"
	case d > 0:
		return "in " + length(d+500*time.Millisecond)
	}
	return length(d) + " ago"
}

// absolute is t on the clock of the person who reads it.
func absolute(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// when says both.
func (u *ui) when(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return fmt.Sprintf("%s (%s)", absolute(t.AsTime()), u.relative(t.AsTime()))
}

// size says a count in binary units, as wg(8) does.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for f >= unit && i < 4 {
		f /= unit
		i++
	}
	return fmt.Sprintf("%.2f %ciB", f, "KMGTP"[i])
}

// number counts things: "1 device", "no devices", "3 devices".
func number(n int, thing string) string {
	switch n {
	case 0:
		return "no " + thing + "s"
	case 1:
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func joined(s []string) string { return strings.Join(s, ", ") }
