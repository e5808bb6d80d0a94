package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
)

// The app's log is as vpnd's: an event a line, in the format that was asked for.
func TestLog(t *testing.T) {
	for format, want := range map[string]string{"text": "protected-app: no room\n", "logfmt": `msg="protected-app ends" why="no room"` + "\n", "json": `"msg":"protected-app ends","why":"no room"}` + "\n"} {
		var out bytes.Buffer
		f := Flags{LogFormat: format}
		f.fail(&out, errors.New("no room"))
		if !strings.HasSuffix(out.String(), want) {
			t.Errorf("%s: %q", format, out.String())
		}
	}
	k := newParser(&Flags{})
	if _, err := k.Parse([]string{"--log-format", "xml"}); err == nil {
		t.Error("--log-format xml is taken")
	}
}

// A refusal is told at debug level, one that is the app's own fault as a warning; never with
// the query, which has a file's name.
func TestRefusalsAreLogged(t *testing.T) {
	for _, c := range []struct {
		err   error
		level string
	}{{noSession, "DEBUG"}, {errBadName, "DEBUG"}, {errors.New("the disk is gone"), "WARN"}, {syscall.ENOSPC, "WARN"}} {
		var out bytes.Buffer
		h := &handler{log: (&Flags{LogFormat: "json", LogLevel: "debug"}).newLog(&out)}
		r := httptest.NewRequest(http.MethodPost, "/api/files?name=diary", nil)
		r.Pattern = "POST /api/files" // as the mux does
		h.refuse(httptest.NewRecorder(), r, c.err)
		var e map[string]any
		if err := json.Unmarshal(out.Bytes(), &e); err != nil {
			t.Fatalf("%v: %q", err, out.String())
		}
		if e["level"] != c.level || e["what"] != "POST /api/files" || e["source"] != "192.0.2.1:1234" || !strings.HasPrefix(fmt.Sprint(e["why"]), c.err.Error()) || strings.Contains(out.String(), "diary") {
			t.Errorf("%v: %s", c.err, out.String())
		}
	}
}
