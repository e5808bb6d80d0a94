package api

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"vpnd/internal/control"
	vpnv1 "vpnd/proto/vpn/v1"
)

// told writes a diff as lines.
func told(d *vpnv1.PolicyDiff) string {
	var lines []string
	for _, c := range d.GetChanges() {
		lines = append(lines, fmt.Sprintf("%s %s %s %s: %q %q -%d +%d", strings.Join(c.GetSources(), ","), c.GetEffect(),
			strings.Join(c.GetDestinations(), ","), strings.Join(c.GetPorts(), ","), c.GetBefore(), c.GetAfter(), c.GetLosing(), c.GetGaining()))
	}
	return strings.Join(lines, "\n")
}

// Who loses what, and what of it is open at this moment.
func TestDiffPolicy(t *testing.T) {
	w := newWorld(t)
	w.signedIn("alice")
	w.signedIn("bob")
	w.enrolled("carol") // not signed in
	c := vpnv1.NewPolicyServiceClient(w.admin())
	head := `{"hosts": {"db": "192.168.10.5", "wiki": "192.168.10.6", "lan": "192.168.20.0/24"}, "grants": [`
	diff := func(text string, base uint64) *vpnv1.DiffPolicyResponse {
		t.Helper()
		r, err := c.DiffPolicy(t.Context(), &vpnv1.DiffPolicyRequest{Text: text, Base: base})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	base := head + `
		{"src": ["autogroup:member"], "dst": ["db"], "ip": ["tcp:5432"]},
		{"src": ["autogroup:member"], "dst": ["lan"], "ip": ["tcp:1-1000"]},
		{"src": ["autogroup:member"], "dst": ["wiki"], "ip": ["tcp:443"], "hours": "Mon 00:00-00:01 UTC", "expires": "2020-01-01T00:00:00Z"},
		{"src": ["bob"], "dst": ["carol"], "ip": ["tcp:22"]},
		{"src": ["192.168.10.5"], "dst": ["autogroup:member"], "ip": ["tcp:9100"]},
	]}`
	if _, problems, _, err := w.ApplyPolicy(t.Context(), base, 1, "", 0); err != nil || problems.Fatal() {
		t.Fatal(problems, err)
	}
	for name, test := range map[string]struct{ text, want string }{
		"nothing":       {base, ``},
		"one person":    {strings.Replace(base, `["autogroup:member"], "dst": ["db"]`, `["alice", "carol"], "dst": ["db"]`, 1), `bob loses db tcp:5432: "always" "" -1 +0`},
		"one port":      {strings.Replace(base, `tcp:1-1000"`, `tcp:1-21", "tcp:23-1000"`, 1), `alice,bob,carol loses lan tcp:22: "always" "" -2 +0`},
		"one address":   {strings.Replace(base, `"dst": ["lan"]`, `"dst": ["lan", "192.168.30.1"]`, 1), `alice,bob,carol gains 192.168.30.1 tcp:1-1000: "" "always" -0 +2`},
		"what was shut": {strings.Replace(base, `"dst": ["wiki"]`, `"dst": []`, 1), `alice,bob,carol loses wiki tcp:443: "Mon 00:00-00:01 UTC; expires 2020-01-01T00:00:00Z" "" -0 +0`},
		"a stale code":  {strings.Replace(base, `"ip": ["tcp:5432"]`, `"ip": ["tcp:5432"], "mfa": "1s"`, 1), `alice,bob,carol changes db tcp:5432: "always" "mfa 1s" -2 +0`},
		"peer offline":  {strings.Replace(base, `{"src": ["bob"], "dst": ["carol"], "ip": ["tcp:22"]},`, ``, 1), `bob loses carol/phone tcp:22: "always" "" -0 +0`},
		"from a host":   {strings.Replace(base, `{"src": ["192.168.10.5"], "dst": ["autogroup:member"], "ip": ["tcp:9100"]},`, ``, 1), `db loses alice/phone,bob/phone,carol/phone tcp:9100: "always" "" -2 +0`},
		"everything":    {`{}`, ""},
	} {
		w.nextPeriod() // codes get older than a second
		r := diff(test.text, 0)
		if got := told(r.GetDiff()); name != "everything" && got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, test.want)
		}
		if name == "everything" && (r.GetDiff().GetLosing() != 2 || len(r.GetDiff().GetChanges()) < 5) {
			t.Errorf("%s: %v", name, r.GetDiff())
		}
		if r.GetDiff().GetBase() != 2 {
			t.Errorf("%s: against version %d", name, r.GetDiff().GetBase())
		}
	}
	if r := diff(base, 1); r.GetDiff().GetBase() != 1 || len(r.GetDiff().GetChanges()) == 0 {
		t.Errorf("against version 1: %v", r)
	}
	if r := diff(`{"grants": 1}`, 0); r.GetDiff() != nil || len(r.GetProblems()) != 1 {
		t.Errorf("a fault: %v", r)
	}
	wantStatus(t, second(c.DiffPolicy(t.Context(), &vpnv1.DiffPolicyRequest{Text: base, Base: 9})), codes.NotFound, control.KindNotFound)
	wantStatus(t, second(c.DiffPolicy(t.Context(), &vpnv1.DiffPolicyRequest{Text: strings.Repeat("x", 1<<20+1)})), codes.InvalidArgument, control.KindTooLarge)
}

// People who have not enrolled yet gain and lose like everybody else.
func TestDiffKnowsPeopleWithoutDevices(t *testing.T) {
	w := newWorld(t)
	w.invited("alice")
	w.enrolled("bob")
	w.invited("carol")
	if _, _, err := w.SetUserEnabled(t.Context(), "carol", false); err != nil {
		t.Fatal(err)
	}
	r, err := policyServer{Edge: w.edge}.DiffPolicy(t.Context(), &vpnv1.DiffPolicyRequest{Text: `{"grants": [
		{"src": ["autogroup:member"], "dst": ["app"], "ip": ["tcp:8080"]},
		{"src": ["alice", "bob", "carol"], "dst": ["192.168.10.5", "alice"], "ip": ["tcp:22"]}]}`})
	if err != nil {
		t.Fatal(err)
	}
	want := `alice,bob gains 192.168.10.5,alice tcp:22: "" "always" -0 +0`
	if got := told(r.GetDiff()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// The answer is bounded, and says what it leaves out.
func TestDiffIsBounded(t *testing.T) {
	w := newWorld(t)
	w.crowd(300)
	var b strings.Builder
	b.WriteString(`{"grants": [`)
	for i := range 1500 {
		fmt.Fprintf(&b, `{"src": ["autogroup:member"], "dst": ["192.168.%d.%d"], "ip": ["tcp:%d"]},`, i/200, i%200, i+1)
	}
	b.WriteString(`]}`)
	r, err := policyServer{Edge: w.edge}.DiffPolicy(t.Context(), &vpnv1.DiffPolicyRequest{Text: b.String()})
	if err != nil {
		t.Fatal(err)
	}
	d := r.GetDiff()
	if n := proto.Size(r); n > 4<<20 {
		t.Errorf("%d bytes", n)
	}
	if len(d.GetChanges()) != maxChanges || d.GetMore() != 501 || d.GetGaining() != 300 || d.GetLosing() != 300 {
		t.Errorf("%d changes and %d more, %d sessions gain", len(d.GetChanges()), d.GetMore(), d.GetGaining())
	}
	if x := d.GetChanges()[0]; len(x.GetSources()) != maxChangeNames || x.GetMoreSources() != 200 || x.GetGaining()+x.GetLosing() != 300 {
		t.Errorf("%d sources and %d more, %d sessions gain", len(x.GetSources()), x.GetMoreSources(), x.GetGaining())
	}
}

func BenchmarkDiffPolicy(b *testing.B) {
	w := newWorld(b)
	w.crowd(10_000)
	var text strings.Builder
	text.WriteString(`{"grants": [`)
	for i := range 1000 {
		a := netip.AddrFrom4([4]byte{192, 168, byte(i / 250), byte(i % 250)})
		fmt.Fprintf(&text, `{"src": ["user%d", "user%d"], "dst": [%q], "ip": ["tcp:%d"]},`, i, i+1, a, i+1)
	}
	text.WriteString(`]}`)
	for b.Loop() {
		if _, problems, err := w.DiffPolicy(text.String(), 0); err != nil || problems.Fatal() {
			b.Fatal(problems, err)
		}
	}
}
