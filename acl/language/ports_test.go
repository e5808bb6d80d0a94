package language

import (
	"errors"
	"strings"
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

func TestParseProtoNumbers(t *testing.T) {
	for s, good := range map[string]bool{"1": true, "254": true, "0": false, "255": false, "256": false, "007": false} {
		if _, err := ParseProto(s); (err == nil) != good {
			t.Errorf("protocol %s: %v", s, err)
		}
	}
}

func TestCheckName(t *testing.T) {
	for s, good := range map[string]bool{
		"a": true, "Z9": true, "a-b": true, "a_b": true, "a.b": true, "a0": true,
		"": false, "9a": false, "-a": false, "_a": false, ".a": false, "a b": false, "a/b": false, "ä": false,
		strings.Repeat("a", MaxName): true, strings.Repeat("a", MaxName+1): false,
	} {
		if err := checkName("host", s); (err == nil) != good {
			t.Errorf("%q: %v", s, err)
		}
	}
}
