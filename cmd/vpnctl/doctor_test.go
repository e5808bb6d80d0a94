package main

import (
	"testing"
	"time"
)

// --wait needs no value, and takes one as people write it.
func TestDoctorWait(t *testing.T) {
	for _, c := range []struct {
		args []string
		want time.Duration // -1: refused
	}{
		{nil, 0}, {[]string{"--wait"}, 3 * time.Minute}, {[]string{"--wait=90s"}, 90 * time.Second}, {[]string{"--wait", "5m"}, 5 * time.Minute},
		{[]string{"--wait", "--json"}, -1}, {[]string{"--wait", "-o", "json"}, 3 * time.Minute},
		{[]string{"--wait=soon"}, -1}, {[]string{"--wait=0s"}, -1}, {[]string{"--wait="}, -1}, {[]string{"--wait", "soon"}, -1},
	} {
		var parsed cli
		k, err := newParser(&parsed, system{stdout: t.Output(), stderr: t.Output()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = k.Parse(append([]string{"doctor"}, c.args...))
		if (err != nil) != (c.want < 0) || err == nil && time.Duration(parsed.Doctor.Wait) != c.want {
			t.Errorf("%q: %v, %v; want %v", c.args, time.Duration(parsed.Doctor.Wait), err, c.want)
		}
	}
}

func TestFold(t *testing.T) {
	const text = "clients dial 203.0.113.9:51820, which leads to an address elsewhere"
	if got := fold(text, 30, "  "); got != "clients dial\n  203.0.113.9:51820, which leads\n  to an address elsewhere" {
		t.Errorf("%q", got)
	}
	if fold(text, 10, "  ") != text || fold(text, -30, "  ") != text {
		t.Error("it is folded where nobody looks")
	}
}
