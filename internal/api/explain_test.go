package api

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"vpnd/internal/control"
	"vpnd/internal/control/controltest"
	"vpnd/internal/dataplane"
	vpnv1 "vpnd/proto/vpn/v1"
)

const explained = `{
"hosts": {"db": "192.168.10.5", "lan": "192.168.20.0/24", "six": "fd00:20::7"},
"groups": {"group:ops": ["alice"], "group:all": ["group:ops"]},
"grants": [
{"src": ["group:all"], "dst": ["db"], "ip": ["tcp:5432"], "mfa": "5m", "note": "the nightly report"},
{"src": ["alice"], "dst": ["db"], "ip": ["udp:53"]},
{"src": ["alice"], "dst": ["lan"], "ip": ["icmp"], "expires": "2020-01-01T00:00:00Z"},
{"src": ["alice"], "dst": ["bob"], "ip": ["tcp:22"]},
{"src": ["db"], "dst": ["alice", "192.168.20.9"], "ip": ["tcp:9100"]},
{"src": ["autogroup:member"], "dst": ["app", "six"], "ip": ["tcp:8080"]},
]}`

func TestExplainPolicy(t *testing.T) {
	w := newWorld(t)
	alice := w.signedIn("alice")
	w.enrolled("bob")
	carol := w.enrolled("carol")
	if _, problems, _, err := w.ApplyPolicy(t.Context(), explained, 1, "", 0); err != nil || problems.Fatal() {
		t.Fatal(problems, err)
	}
	if _, _, err := w.SetDeviceEnabled(t.Context(), "carol/phone", false); err != nil {
		t.Fatal(err)
	}
	c := vpnv1.NewPolicyServiceClient(w.admin())
	w.gateway.Set(func(g *controltest.Gateway) { g.Passes = func(f dataplane.Flow) (bool, error) { return true, nil } })
	explain := func(source, destination, port string) *vpnv1.ExplainPolicyResponse {
		t.Helper()
		r, err := c.ExplainPolicy(t.Context(), &vpnv1.ExplainPolicyRequest{Source: source, Destination: destination, Port: port})
		if err != nil {
			t.Fatalf("%s to %s %s: %v", source, destination, port, err)
		}
		return r
	}
	for _, test := range []struct{ source, destination, port, flow, reason, message string }{
		{"alice/phone", "db:5432", "", "alice/phone db 192.168.10.5 tcp:5432", "allowed", "It may pass."},
		{"alice", "db", "tcp:5432", "alice/phone db 192.168.10.5 tcp:5432", "allowed", ""},
		{alice.addr.String(), "192.168.10.5:5432", "", "alice/phone db 192.168.10.5 tcp:5432", "allowed", ""},
		{"alice/phone", "app:8080", "", "alice/phone app 10.77.0.1 tcp:8080", "allowed", ""},
		{"alice/phone", "app:80", "", "alice/phone app 10.77.0.1 tcp:80", "allowed", "sign-in page"},
		{"alice/phone", "udp:db:53", "", "alice/phone db 192.168.10.5 udp:53", "allowed", ""},
		{"alice/phone", "six:8080", "", "alice/phone six fd00:20::7 tcp:8080", "allowed", ""},
		{"alice/phone", "db:22", "", "alice/phone db 192.168.10.5 tcp:22", "no_grant", "A grant is missing: none from alice/phone to db covers tcp:22."},
		{"alice/phone", "icmp:lan", "", "alice/phone 192.168.20.1 192.168.20.1 icmp", "outside_time", "does not come again"},
		{"alice/phone", "bob:22", "", "alice/phone bob/phone 10.77.0.3 tcp:22", "peer_offline", "bob/phone is not signed in"},
		{"bob/phone", "app:8080", "", "bob/phone app 10.77.0.1 tcp:8080", "no_session", "A code is missing: bob/phone is not signed in."},
		{"carol/phone", "app:8080", "", "carol/phone app 10.77.0.1 tcp:8080", "disabled", "The device carol/phone is disabled"},
		{carol.addr.String(), "app:80", "", "carol/phone app 10.77.0.1 tcp:80", "disabled", ""},
		{"db", "alice/phone:9100", "", "db alice/phone " + alice.addr.String() + " tcp:9100", "allowed", ""},
		{"db", "192.168.20.9:9100", "", "db 192.168.20.9 192.168.20.9 tcp:9100", "no_session", "nobody can give a code"},
	} {
		f := explain(test.source, test.destination, test.port).GetFlows()[0]
		if got := fmt.Sprintf("%s %s %s %s", f.GetSource(), f.GetDestination(), f.GetDestinationAddress(), f.GetPort()); got != test.flow ||
			f.GetReason() != test.reason || f.GetAllowed() != (test.reason == "allowed") || !strings.Contains(f.GetMessage(), test.message) {
			t.Errorf("%s to %s: %v", test.source, test.destination, f)
		}
		if test.destination == "app:80" && test.reason == "disabled" {
			if f.PlanePermits != nil || f.GetDisagreement() || !strings.Contains(f.GetPlaneError(), "carol/phone is none") {
				t.Errorf("the sign-in page of who is no peer: %v", f)
			}
			continue
		}
		if f.GetDisagreement() == f.GetAllowed() || !f.GetPlanePermits() {
			t.Errorf("%s to %s: the plane lets everything pass: %v", test.source, test.destination, f)
		}
	}
	f := explain("alice/phone", "db:5432", "").GetFlows()[0]
	if g := f.GetGrants(); len(g) != 1 || g[0].GetLine() != 5 || g[0].GetFrom() != "group:all through group:ops" || g[0].GetNote() != "the nightly report" || !g[0].GetAllows() {
		t.Errorf("grants: %v", g)
	}
	if o := f.GetOthers(); len(o) != 1 || o[0].GetLine() != 6 || o[0].GetPorts() != "udp:53" {
		t.Errorf("others: %v", o)
	}
	if d := f.GetUntil().AsTime().Sub(w.now()); d <= 0 || d > 5*time.Minute {
		t.Errorf("until %v", f.GetUntil().AsTime())
	}
	if r := explain("alice/phone", "lan:22", "").GetRemarks(); len(r) != 1 || !strings.Contains(r[0], "lan is a network") {
		t.Errorf("remarks: %v", r)
	}
	w.offset.Add(int64(5 * time.Minute))
	if f := explain("alice/phone", "db:5432", "").GetFlows()[0]; f.GetReason() != "stale_code" || !strings.Contains(f.GetMessage(), "A fresh code is missing: the last one of alice/phone is 5 minutes") {
		t.Errorf("a stale code: %v", f)
	}
	for _, test := range []struct {
		source, destination, port string
		code                      codes.Code
		reason                    string
	}{
		{"alice/phone", "db", "", codes.InvalidArgument, control.KindInvalid},
		{"alice/phone", "group:ops:22", "", codes.InvalidArgument, control.KindInvalid},
		{"alice/phone", "none:22", "", codes.NotFound, control.KindNotFound},
		{"alice/tablet", "db:22", "", codes.NotFound, control.KindNotFound},
		{"nobody", "db:22", "", codes.NotFound, control.KindNotFound},
		{alice.addr.String(), "six:22", "", codes.InvalidArgument, control.KindInvalid}, // of two families
		{"alice/phone", "alice/phone:22", "", codes.InvalidArgument, control.KindInvalid},
	} {
		wantStatus(t, second(c.ExplainPolicy(t.Context(), &vpnv1.ExplainPolicyRequest{Source: test.source, Destination: test.destination, Port: test.port})), test.code, test.reason)
	}
}

// What the data plane says is told as it is; a disagreement is one that lasts.
func TestExplainAsksThePlane(t *testing.T) {
	w := newWorld(t)
	w.signedIn("alice")
	w.enrolled("bob")
	if _, problems, _, err := w.ApplyPolicy(t.Context(), explained, 1, "", 0); err != nil || problems.Fatal() {
		t.Fatal(problems, err)
	}
	ask := func(source, destination string, passes func(dataplane.Flow) (bool, error)) []control.FlowAnswer {
		t.Helper()
		w.gateway.Set(func(g *controltest.Gateway) { g.Passes = passes })
		list, _, err := w.ExplainPolicy(t.Context(), source, destination, "")
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	var asked atomic.Int32
	late := func(f dataplane.Flow) (bool, error) { return asked.Add(1) > 2, nil }
	if a := ask("alice/phone", "app:8080", late); len(a) != 1 || a[0].Disagree() {
		t.Errorf("a plane that needed a moment: %+v", a)
	}
	never := func(dataplane.Flow) (bool, error) { return false, nil }
	if a := ask("alice/phone", "app:8080", never); len(a) != 1 || !a[0].Disagree() || !a[0].Allow {
		t.Errorf("a plane that never opens: %+v", a)
	}
	// Both families are told where they differ.
	four := func(f dataplane.Flow) (bool, error) { return f.Dst.Is4(), nil }
	if a := ask("alice/phone", "app:8080", four); len(a) != 2 || a[0].Disagree() || !a[1].Disagree() || a[1].Dst.Is4() {
		t.Errorf("a plane without IPv6: %+v", a)
	}
	broken := func(dataplane.Flow) (bool, error) { return false, errors.New("netlink is busy") }
	if a := ask("alice/phone", "app:8080", broken); a[0].Asked || a[0].Disagree() || a[0].PlaneErr != "netlink is busy" {
		t.Errorf("a plane that fails: %+v", a)
	}
	w.gateway.Set(func(g *controltest.Gateway) { g.Plane = "netstack" })
	if a := ask("db", "alice/phone:9100", never); a[0].Asked || !strings.Contains(a[0].PlaneErr, "netstack") {
		t.Errorf("a plane that cannot: %+v", a)
	}
}
