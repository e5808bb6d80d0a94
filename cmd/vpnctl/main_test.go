package main

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the test binary vpnctl itself where a script calls it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"vpnctl": main})
}

// TestScripts runs testdata/*.txtar. Each script has a vpnd of its own: the real control
// and the real store, with a stand-in for the data plane (see world_test.go).
func TestScripts(t *testing.T) {
	page, err := filepath.Abs("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else every vpnctl built with -race idles a second at its end
			env.Setenv("VPNCTL_SOCKET", env.WorkDir+"/vpnd.sock")
			w, err := newWorld(env.WorkDir)
			if err != nil {
				return err
			}
			env.Values[worldKey{}] = w
			env.Defer(w.close)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     exits,
			"enrol":     inWorld((*world).enrol),
			"signin":    inWorld((*world).signIn),
			"lock":      inWorld((*world).lock),
			"seen":      inWorld((*world).seen),
			"gateway":   inWorld((*world).setGateway),
			"stop":      inWorld((*world).stop),
			"passes":    inWorld((*world).passes),
			"inforce":   inWorld((*world).inForce),
			"qr":        qr,
			"pipelines": pipelines(page),
			"same":      same,
			"wg":        wgSetconf,
		},
	})
}
