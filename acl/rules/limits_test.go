package rules_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"vpnd/acl/language"
	"vpnd/acl/rules"
)

// TestElements: what the gateways' tables cannot hold is refused, with numbers, when it is
// checked; what is promised they can hold.
func TestElements(t *testing.T) {
	compileLarge(t, large(50_000, 500, 5000))

	// Everybody has a role of her own, and each may use each of a thousand ports.
	var b strings.Builder
	var subjects []rules.Subject
	b.WriteString(`{"grants": [`)
	for i := range 3000 {
		fmt.Fprintf(&b, `{"src": ["u%d"], "dst": ["10.1.%d.%d"], "ip": ["tcp:22"]},`, i, i/250, i%250)
		subjects = append(subjects, rules.Subject{Device: fmt.Sprintf("u%d/d", i), User: fmt.Sprintf("u%d", i), Addrs: []netip.Addr{deviceAddr(i, true)}})
	}
	for i := range 1000 {
		fmt.Fprintf(&b, `{"src": ["autogroup:member"], "dst": ["10.2.0.1"], "ip": ["tcp:%d"]},`, 1000+i)
	}
	text := b.String() + `]}`
	p, err := language.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	_, err = rules.Compile(p, benchOptions, subjects)
	if _, ok := errors.AsType[language.ErrorList](err); !ok || !strings.Contains(err.Error(), "elements") || !strings.Contains(err.Error(), "2000000") {
		t.Errorf("3,000 roles with 1,000 classes: %v", err)
	}
	// What was accepted once is compiled for ever.
	o := benchOptions
	o.Stored = true
	if _, err := rules.Compile(p, o, subjects); err != nil {
		t.Errorf("stored: %v", err)
	}
}
