package portal

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
)

// A request's path cannot make a line of the log.
func TestLogIsOneLine(t *testing.T) {
	var line string
	h := handlers{logf: func(format string, args ...any) { line = fmt.Sprintf(format, args...) }}
	r := httptest.NewRequest("GET", "/api/%0Avpnd:%20session%20of%20alice%1b[2J?next=secret", nil)
	h.log(r, 500, errors.New("cause"))
	if strings.ContainsAny(line, "\n\x1b") || strings.Contains(line, "secret") {
		t.Errorf("the log says %q", line)
	}
}
