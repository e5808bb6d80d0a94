package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	vpnv1 "vpnd/proto/vpn/v1"
)

// On a terminal of 80 columns no line of the settings is broken by it, and what pins a value is told.
func TestSettingsOnANarrowTerminal(t *testing.T) {
	s := &vpnv1.Settings{
		Endpoint: "vpn-gateway-frankfurt-1.internal.example.com:51820", Url: "https://vpn-gateway-frankfurt-1.internal.example.com:8443",
		Session: durationpb.New(12 * time.Hour), Network: []string{"10.77.0.0/16", "fd77:602f:6b8f:e9f6::/64"},
		Routes: []string{"198.51.100.0/24", "2001:db8:2::/64", "192.168.200.0/24", "192.168.201.0/24", "10.10.0.0/16"},
		Origins: []*vpnv1.Origin{
			{Setting: "endpoint", From: "the flag --endpoint", Pinned: true}, {Setting: "url", From: "cluster"},
			{Setting: "routes", From: "the file /etc/vpnd/vpnd.toml", Pinned: true}, {Setting: "dns", From: "default"},
		},
	}
	var b bytes.Buffer
	a := &app{ui: &ui{out: &b, columns: 80}}
	a.settings(s)
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
	for _, want := range []string{
		"endpoint    vpn-gateway-frankfurt-1.internal.example.com:51820\n                                      pinned by the flag --endpoint\n",
		"routes      198.51.100.0/24           pinned by the file /etc/vpnd/vpnd.toml\n            2001:db8:2::/64\n",
		"dns         none                      default\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("want\n%s in\n%s", want, b.String())
		}
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text    string
		columns int
		want    string
	}{
		{"", 30, ""},
		{"one two", 0, "one two"}, // no terminal
		{"one two three four five six seven", 24, "one two three four five|six seven"},
		{"a averylongwordthatislongerthantheterminal b", 24, "a|averylongwordthatislongerthantheterminal|b"},
		{"größte Übertragungseinheit reicht", 26, "größte Übertragungseinheit|reicht"},
	} {
		if got := strings.Join(wrap(c.text, c.columns), "|"); got != c.want {
			t.Errorf("wrap(%q, %d) = %q, want %q", c.text, c.columns, got, c.want)
		}
	}
}
