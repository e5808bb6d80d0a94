package review_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"vpnd/acl/acltest"
	"vpnd/acl/language"
	"vpnd/acl/review"
	"vpnd/acl/rules"
)

// What is found beyond the text has a code of the list, and the one that is meant: by the
// compiler with these settings and by the policy's tests. (acl/language's tests have the rest.)
func TestFaultsHaveCodes(t *testing.T) {
	var costly, sources, ports strings.Builder
	for i := range 1200 { // each grant has a freshness of its own
		fmt.Fprintf(&costly, `{"src":["u%d"],"dst":["10.0.0.1"],"ip":["tcp:%d-%d"],"mfa":"%ds"},`, i, 1+i*3, 40000+i*2, 60+i)
	}
	for i := range 700 { // each source is asked about each range of ports
		fmt.Fprintf(&sources, `"u%d",`, i)
	}
	for i := range 20_000 {
		fmt.Fprintf(&ports, "%d,", 1+2*i)
	}
	wide := fmt.Sprintf(`{"tests": [{"src": [%s], "accept": ["app:%s60000"]}]}`, &sources, &ports)
	short := acltest.Small
	short.Session = time.Hour
	none := acltest.Small
	none.Session = 0
	for name, c := range map[string]struct {
		text    string
		options rules.Options
		want    language.Code
	}{
		"more work than a policy may make":  {`{"grants": [` + costly.String() + `]}`, acltest.Small, language.CodeOverBudget},
		"more work than its tests may make": {wide, acltest.Small, language.CodeOverBudget},
		"a test that fails":                 {`{"tests": [{"src": "autogroup:member", "accept": ["app:8080"]}]}`, acltest.Small, language.CodeTestFailed},
		"older than a session":              {`{"grants": [{"src": ["*"], "dst": ["app"], "ip": ["*"], "mfa": "2h"}]}`, short, language.CodeBadMFA},
		"a session of no length":            {`{}`, none, language.CodeInternal},
	} {
		p, err := language.Parse([]byte(c.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_, list := review.Check(p, c.options, nil)
		found := false
		for _, e := range list {
			found = found || e.Code == c.want
			if e.Code != c.want && e.Code != language.CodeUnknownUser && e.Code != language.CodeTestFailed {
				t.Errorf("%s: %v has the code %q", name, e, e.Code)
			}
		}
		if !found {
			t.Errorf("%s: no fault has the code %s", name, c.want)
		}
	}
}
