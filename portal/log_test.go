package portal

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
)

// A request's path cannot make a line of the log.
func TestLogIsOneLine(t *testing.T) {
	l := &logLines{t: t}
	h := handlers{to: l.log()}
	r := httptest.NewRequest("GET", "/api/%0Avpnd:%20session%20of%20alice%1b[2J?next=secret", nil)
	h.log(r, 500, errors.New("cause"))
	line := strings.TrimSuffix(strings.Join(l.lines, ""), "\n")
	if !strings.Contains(line, "cause") || strings.ContainsAny(line, "\n\x1b") || strings.Contains(line, "secret") {
		t.Errorf("the log says %q", line)
	}
}
