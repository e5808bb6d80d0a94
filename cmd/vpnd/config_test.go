package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vpnd.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A flag outweighs the environment, that the file, and that the default.
func TestPrecedence(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	path := writeConfig(t, `
endpoint = "file.example:1"
url = "https://file.example"
interface = "file0"
app-port = 9000
routes = ["198.51.100.0/24", "2001:db8:2::/64"]
`)
	t.Setenv("VPND_ENDPOINT", "env.example:1")
	t.Setenv("VPND_URL", "https://env.example")
	f, err := parse([]string{"--config", path, "--endpoint", "flag.example:1"}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ got, want, from string }{
		"endpoint":  {f.Endpoint, "flag.example:1", "the flag --endpoint"},
		"url":       {f.URL, "https://env.example", "the variable VPND_URL"},
		"interface": {f.Interface, "file0", "its line in " + path},
		"routes":    {f.Routes, "198.51.100.0/24,2001:db8:2::/64", "its line in " + path},
		"plane":     {f.Plane, "auto", ""},
	} {
		if c.got != c.want || f.from[name] != c.from {
			t.Errorf("%s is %q from %q, want %q from %q", name, c.got, f.from[name], c.want, c.from)
		}
	}
	if f.AppPort != 9000 {
		t.Errorf("app-port is %d", f.AppPort)
	}
	if p := f.pinned(); len(p) != 3 || p["endpoint"] == "" || p["url"] == "" || p["routes"] == "" {
		t.Errorf("pinned are %v", p)
	}
}

// Every flag may stand in the file, but those that make no sense there.
func TestEveryFlagInTheFile(t *testing.T) {
	k, err := newParser(&Flags{}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range k.Model.Flags {
		refused := false
		for _, name := range append([]string{"man", "man-toml"}, notInFile...) {
			refused = refused || f.Name == name
		}
		value := `"x"`
		if f.Name == "app-port" {
			value = "1"
		}
		c, err := readConfig(k, []string{"--config", writeConfig(t, f.Name+" = "+value)})
		if refused != (err != nil) {
			t.Errorf("%s: %v", f.Name, err)
		}
		if !refused && c.values[f.Name] == "" {
			t.Errorf("%s is not read", f.Name)
		}
		if !refused && len(f.Envs) == 0 {
			t.Errorf("%s has no variable of the environment", f.Name)
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	for text, want := range map[string][]string{
		"interfcae = \"x\"":       {`"interfcae" is no flag`, `did you mean "interface"?`},
		"sealing_key = \"x\"":     {`did you mean "sealing-key"?`},
		"zzzzzz = 1":              {`"zzzzzz" is no flag of vpnd; see`},
		"a = 1\nendpiont = \"x\"": {`"a" is no flag`, `"endpiont" is no flag`, `"endpoint"`},
		"[endpoint]\nx = 1":       {"endpoint: ", "not a table"},
		"endpoint = 2026-01-01":   {"endpoint: ", "not a time"},
		"routes = [1, 2]":         {"routes: ", "texts in quotes"},
		"config = \"x\"":          {`"config" is no flag`},
		"app-port = \"many\"":     {"app-port", "many"},
		"endpoint = ":             {"line 1"},
	} {
		var out bytes.Buffer
		if code := Main(t.Context(), []string{"--check-config", "--config", writeConfig(t, text)}, &out); code != 2 {
			t.Errorf("%q: exit code %d", text, code)
		}
		for _, s := range want {
			if !strings.Contains(out.String(), s) {
				t.Errorf("%q: %s\nwant %s", text, out.String(), s)
			}
		}
	}
}

// --check-config prints what holds and why, and touches nothing.
func TestCheckConfig(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_STATE_HOME", dir)
	t.Setenv("VPND_PORTAL", ":9443")
	var out bytes.Buffer
	if code := Main(t.Context(), []string{"--check-config", "--data", dir + "/d", "--sealing-key", dir + "/k"}, &out); code != 0 {
		t.Fatalf("exit code %d: %s", code, out.String())
	}
	for _, want := range []string{"portal          :9443", "the variable VPND_PORTAL", "the flag --data", "interface       vpn0"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if things, err := os.ReadDir(dir); err != nil || len(things) > 0 {
		t.Errorf("it made %v, %v", things, err)
	}
}
