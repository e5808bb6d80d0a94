package main

import "testing"

func TestSameHostHasOneSpelling(t *testing.T) {
	for _, c := range []struct {
		host, local string
		want        bool
	}{
		{"10.77.0.1:8080", "10.77.0.1:8080", true}, {"10.77.0.1:8080", "[::ffff:10.77.0.1]:8080", true}, {"[fd00::1]:8080", "[fd00::1]:8080", true},
		{"[FD00:0::1]:8080", "[fd00::1]:8080", true}, // compared as an address
		{"10.77.0.1", "10.77.0.1:80", true}, {"[fd00::1]", "[fd00::1]:80", true},
		{"[fd00::1", "[fd00::1]:80", false}, {"fd00::1]", "[fd00::1]:80", false}, {"[[fd00::1]]", "[fd00::1]:80", false}, {"fd00::1", "[fd00::1]:80", false},
		{"[10.77.0.1]", "10.77.0.1:80", false}, {"[::ffff:10.77.0.1]:8080", "10.77.0.1:8080", false}, {"[fd00::1%eth0]:8080", "[fd00::1]:8080", false},
		{"10.77.0.1", "10.77.0.1:8080", false}, {"10.77.0.1:8081", "10.77.0.1:8080", false}, {"app:8080", "10.77.0.1:8080", false}, {"", "10.77.0.1:80", false},
	} {
		if got := sameHost(c.host, c.local); got != c.want {
			t.Errorf("%q at %s: %v", c.host, c.local, got)
		}
	}
}
