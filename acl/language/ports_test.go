package language

import (
	"errors"
	"testing"
)

// TestSpans reads, merges and writes ports.
func TestSpans(t *testing.T) {
	for _, test := range []struct{ list, want string }{
		{"443", "icmp, tcp:443, udp:443"},
		{"*", "icmp, tcp:*, udp:*"},
		{"tcp:80-90,91", "tcp:80-91"},
		{"tcp:80-90,92", "tcp:80-90, tcp:92"},
		{"tcp:1-10,5-7,10-20", "tcp:1-20"},
		{"udp:65535,1-65534", "udp:1-65535"},
		{"icmp", "icmp"},
		{"58:*", "58:*"},
		{"47:*", "47:*"},
	} {
		list, err := parseIP(test.list)
		if got := SpansText(mergeSpans(list)); err != nil || got != test.want {
			t.Errorf("%s: %s, %v, want %s", test.list, got, err, test.want)
		}
	}
}

// What is no element of "ip" is told by the message of what it looks like: a protocol's name
// begins with no digit.
func TestParseIPSays(t *testing.T) {
	for s, want := range map[string]Code{
		"tpc": CodeBadProtocol, "/": CodeBadProtocol, ";": CodeBadProtocol, "-1": CodeBadProtocol,
		"": CodeBadPort, "0": CodeBadPort, "0x": CodeBadPort, "9x": CodeBadPort, "99999": CodeBadPort,
	} {
		_, err := parseIP(s)
		if f, ok := errors.AsType[*fault](err); !ok || f.code != want {
			t.Errorf("%q: %v, want the code %s", s, err, want)
		}
	}
}
