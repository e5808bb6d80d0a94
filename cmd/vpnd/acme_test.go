package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestACMEFlags(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--acme", "ops@example.com"}, 0, "portal          :443"},
		{[]string{"--acme", "ops@example.com", "--portal", ":8443"}, 0, "portal          :8443"},
		{[]string{"--acme", "nobody"}, 2, "e-mail address"},
		{[]string{"--acme", "Ops <ops@example.com>"}, 2, "e-mail address"},
		{[]string{"--acme-directory", "https://ca.example.com/dir"}, 2, "go with --acme"},
		{[]string{"--acme", "ops@example.com", "--acme-directory", "http://ca.example.com/dir"}, 2, "https://"},
		{[]string{"--acme", "ops@example.com", "--cert", "a", "--key", "b"}, 2, "leave one of them out"},
	} {
		var out bytes.Buffer
		code := Main(t.Context(), append([]string{"--check-config"}, c.args...), &out)
		if code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("%q: exit code %d:\n%s", c.args, code, out.String())
		}
	}
}
