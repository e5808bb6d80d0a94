package api

import (
	"bytes"
	"context"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"vpnd/internal/control"
	"vpnd/internal/control/controltest"
	"vpnd/internal/dataplane"
	"vpnd/peers"
	vpnv1 "vpnd/proto/vpn/v1"
)

// secretFields are those whose purpose is to hand a secret over.
var secretFields = map[protoreflect.FullName]bool{
	"vpn.v1.Invitation.link":             true,
	"vpn.v1.AddDeviceResponse.config":    true,
	"vpn.v1.RotateDeviceResponse.config": true,
}

// withoutSecrets clears those fields and collects what they held.
func withoutSecrets(m protoreflect.Message, held *[]string) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case secretFields[f.FullName()]:
			*held = append(*held, v.String())
			m.Clear(f)
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				withoutSecrets(v.List().Get(i).Message(), held)
			}
		case f.Message() != nil && !f.IsMap():
			withoutSecrets(v.Message(), held)
		}
		return true
	})
}

var pskLine = regexp.MustCompile(`(?m)^PresharedKey = (\S+)$`)

// Secrets are planted, everything is exercised, and then looked for in the log, the
// errors, the gRPC answers, the commands and the snapshot.
func TestCanaries(t *testing.T) {
	w := newWorld(t)
	var (
		c       controltest.Canaries
		mu      sync.Mutex
		answers = map[string][]byte{} // method and text -> bytes, less the fields that are secrets
		called  = map[string]bool{}
	)
	set, _ := w.View().Settings()
	private, err := w.sealer.GatewayKey(set)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := w.sealer.Open(set.Cluster, "ca.private-key", set.CAKey)
	if err != nil {
		t.Fatal(err)
	}
	c.Plant("the sealing key", w.key)
	c.Plant("the gateway's private key", private[:])
	c.Plant("the CA's key", ca)
	c.Plant("a part of the CA's key", ca[36:68]) // the scalar, in PKCS #8 of P-256
	c.Plant("a browser's cookie", []byte("browser of alice"))

	config := func(text string) {
		t.Helper()
		m := pskLine.FindStringSubmatch(text)
		if m == nil {
			t.Fatal("a config without a preshared key")
		}
		psk, err := base64.StdEncoding.DecodeString(m[1])
		if err != nil {
			t.Fatal(err)
		}
		c.Plant("a preshared key", psk)
		c.Plant("the preshared key "+m[1][:4], psk)
	}
	record := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := invoke(ctx, method, req, reply, cc, opts...)
		mu.Lock()
		defer mu.Unlock()
		called[method] = true
		if err != nil {
			answers[method+" error"] = append(answers[method+" error"], err.Error()...)
			b, _ := proto.Marshal(status.Convert(err).Proto())
			answers[method+" error"] = append(answers[method+" error"], b...)
			return err
		}
		m := proto.Clone(reply.(proto.Message))
		var held []string
		withoutSecrets(m.ProtoReflect(), &held)
		for _, h := range held {
			if strings.Contains(h, "#") {
				c.Plant("an invitation's token", []byte(h[strings.Index(h, "#")+1:]))
				c.Plant("the token "+h[strings.Index(h, "#")+1:][:4], []byte(h[strings.Index(h, "#")+1:]))
			} else {
				config(h)
			}
		}
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Error(err)
		}
		answers[method] = append(answers[method], b...)
		return nil
	}
	cc := w.admin(grpc.WithUnaryInterceptor(record))
	var told bytes.Buffer // what errors of the portal's use cases say
	tell := func(err error) {
		if err != nil {
			told.WriteString(err.Error() + "\n")
			for e := err; e != nil; e = errors.Unwrap(e) {
				told.WriteString(e.Error() + "\n")
			}
		}
	}

	exerciseAll(t, w, cc, &c, config, tell)

	for _, m := range methodsOf(w.edge.Control()) {
		if strings.HasPrefix(m, "/vpn.v1.") && !called[m] {
			t.Errorf("%s was not exercised", m)
		}
	}
	for where, b := range answers {
		if what := c.Find(b); what != "" {
			t.Errorf("the answer of %s holds %s", where, what)
		}
	}
	var snapshot bytes.Buffer
	if _, err := w.store.State().Snapshot().WriteTo(&snapshot); err != nil {
		t.Fatal(err)
	}
	var audit strings.Builder
	for _, e := range w.View().Audit(0, 10_000) {
		audit.WriteString(e.Actor + " " + e.Action + " " + e.Target + " " + e.Detail + "\n")
	}
	for where, b := range map[string][]byte{
		"the log": []byte(w.log.String()), "an error": told.Bytes(), "the commands": bytes.Join(w.store.Log(), nil),
		"the snapshot": snapshot.Bytes(), "the audit log": []byte(audit.String()),
	} {
		if len(b) == 0 {
			t.Errorf("%s is empty: nothing was looked at", where)
		}
		if what := c.Find(b); what != "" {
			t.Errorf("%s holds %s", where, what)
		}
	}
	// The search itself works.
	if c.Find([]byte("x"+base64.StdEncoding.EncodeToString(private[:]))) == "" {
		t.Error("a canary is not found where it is")
	}
}

// exerciseAll calls every use case and every method, in success and in failure.
func exerciseAll(t *testing.T, w *world, cc *grpc.ClientConn, c *controltest.Canaries, config func(string), tell func(error)) {
	ctx := t.Context()
	users, devices := vpnv1.NewUserServiceClient(cc), vpnv1.NewDeviceServiceClient(cc)
	sessions, policies := vpnv1.NewSessionServiceClient(cc), vpnv1.NewPolicyServiceClient(cc)
	gw := vpnv1.NewGatewayServiceClient(cc)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	enrol := func(name, link string) person {
		t.Helper()
		p := person{name: name, token: link[strings.Index(link, "#")+1:], key: publicKey(t)}
		tell(second(w.EnrolBegin(ctx, p.token[:20], "browser of alice")))
		e, err := w.EnrolBegin(ctx, p.token, "browser of alice")
		must(err)
		p.secret = e.Secret
		raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(e.Secret)
		must(err)
		c.Plant("the TOTP secret of "+name, raw)
		req := control.FinishRequest{Token: p.token, Browser: "another", Code: w.codeNow(p.secret), Device: "phone", PublicKey: p.key}
		tell(second(w.EnrolFinish(ctx, req)))
		req.Browser, req.Code = "browser of alice", w.wrongCode(p.secret)
		tell(second(w.EnrolFinish(ctx, req)))
		req.Code = w.codeNow(p.secret)
		p.done, err = w.EnrolFinish(ctx, req)
		must(err)
		tell(second(w.EnrolFinish(ctx, req)))
		config(p.done.Config)
		p.addr = p.done.Addresses[0]
		tell(second(w.EnrolStatus(ctx, p.token, p.key)))
		tell(second(w.EnrolStatus(ctx, p.token, publicKey(t))))
		return p
	}
	add, err := users.AddUser(ctx, &vpnv1.AddUserRequest{Name: "alice"})
	must(err)
	alice := enrol("alice", add.GetInvitation().GetLink())
	w.nextPeriod()
	tell(second(w.SignIn(ctx, alice.addr, w.wrongCode(alice.secret))))
	must(second(w.SignIn(ctx, alice.addr, w.codeNow(alice.secret))))
	tell(second(w.SignIn(ctx, alice.addr, w.codeNow(alice.secret))))
	must(second(users.ListUsers(ctx, &vpnv1.ListUsersRequest{})))
	must(second(sessions.ListSessions(ctx, &vpnv1.ListSessionsRequest{})))
	must(second(vpnv1.NewWhoIsServiceClient(cc).WhoIs(ctx, &vpnv1.WhoIsRequest{Address: alice.addr.String()})))
	must(second(sessions.EndSessions(ctx, &vpnv1.EndSessionsRequest{Which: &vpnv1.EndSessionsRequest_All{All: true}})))
	must(w.SignOut(ctx, alice.addr))

	dev, err := devices.AddDevice(ctx, &vpnv1.AddDeviceRequest{User: "alice", Name: "laptop", PublicKey: publicKey(t)})
	must(err)
	_, err = devices.AddDevice(ctx, &vpnv1.AddDeviceRequest{User: "alice", Name: "laptop", PublicKey: dev.GetDevice().GetPublicKey()})
	tell(err)
	must(second(devices.RotateDevice(ctx, &vpnv1.RotateDeviceRequest{Name: "alice/laptop", PublicKey: publicKey(t)})))
	must(second(devices.SetDeviceEnabled(ctx, &vpnv1.SetDeviceEnabledRequest{Name: "alice/laptop"})))
	must(second(devices.GetDevice(ctx, &vpnv1.GetDeviceRequest{Name: "alice/laptop"})))
	must(second(devices.ListDevices(ctx, &vpnv1.ListDevicesRequest{})))
	must(second(devices.RemoveDevice(ctx, &vpnv1.RemoveDeviceRequest{Name: "alice/laptop"})))
	must(second(users.GetUser(ctx, &vpnv1.GetUserRequest{Name: "alice"})))
	must(second(users.UnlockUser(ctx, &vpnv1.UnlockUserRequest{Name: "alice"})))
	must(second(users.InviteUser(ctx, &vpnv1.InviteUserRequest{Name: "alice"})))
	reset, err := users.ResetTotp(ctx, &vpnv1.ResetTotpRequest{Name: "alice"})
	must(err)
	w.nextPeriod()
	link := reset.GetInvitation().GetLink()
	e, err := w.EnrolBegin(ctx, link[strings.Index(link, "#")+1:], "browser of alice")
	must(err)
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(e.Secret)
	must(err)
	c.Plant("a pending TOTP secret", raw)
	must(second(users.SetUserEnabled(ctx, &vpnv1.SetUserEnabledRequest{Name: "alice"})))

	must(second(policies.GetPolicy(ctx, &vpnv1.GetPolicyRequest{})))
	must(second(policies.CheckPolicy(ctx, &vpnv1.CheckPolicyRequest{Text: otherPolicy})))
	must(second(policies.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: otherPolicy, Base: 1})))
	must(second(policies.DiffPolicy(ctx, &vpnv1.DiffPolicyRequest{Text: "{}"})))
	must(second(policies.ListGroups(ctx, &vpnv1.ListGroupsRequest{})))
	must(second(policies.AllowLocalTargets(ctx, &vpnv1.AllowLocalTargetsRequest{Targets: []string{"localhost:1"}})))
	must(second(policies.ListResources(ctx, &vpnv1.ListResourcesRequest{})))
	must(second(policies.CheckResource(ctx, &vpnv1.CheckResourceRequest{})))
	must(second(policies.ExplainPolicy(ctx, &vpnv1.ExplainPolicyRequest{Source: "alice/phone", Destination: "app:8080"})))
	for i := range 2 { // once to be taken back, once to be confirmed
		now, err := policies.GetPolicy(ctx, &vpnv1.GetPolicyRequest{})
		must(err)
		must(second(policies.ApplyPolicy(ctx, &vpnv1.ApplyPolicyRequest{Text: now.GetPolicy().GetText(), Base: now.GetPolicy().GetVersion(), Confirm: durationpb.New(time.Hour)})))
		if i == 0 {
			must(second(policies.RevertPolicy(ctx, &vpnv1.RevertPolicyRequest{})))
		} else {
			must(second(policies.ConfirmPolicy(ctx, &vpnv1.ConfirmPolicyRequest{})))
		}
	}
	must(second(policies.ListPolicies(ctx, &vpnv1.ListPoliciesRequest{})))
	must(second(gw.SetSettings(ctx, &vpnv1.SetSettingsRequest{Url: ptr("https://other.example.com")})))
	must(second(gw.GetStatus(ctx, &vpnv1.GetStatusRequest{})))
	_, err = gw.Diagnose(ctx, &vpnv1.DiagnoseRequest{}) // the doctor is vpnd's own; here is none
	if status.Code(err) != codes.Unimplemented {
		w.t.Errorf("Diagnose without a doctor: %v", err)
	}
	must(second(gw.ResetTime(ctx, &vpnv1.ResetTimeRequest{})))
	must(second(w.TLSConfig("", "")))
	stop := w.running()
	w.ReportDrift(dataplane.Drift{What: "peer", Was: "removed"})
	stop()

	// When nothing works, errors and the log say so without the secrets.
	w.gateway.Set(func(g *controltest.Gateway) { g.Fail = errors.New("the plane is gone") })
	w.store.SetFail(errors.New("the disk is full"))
	_, err = users.AddUser(ctx, &vpnv1.AddUserRequest{Name: "bob"})
	tell(err)
	tell(second(w.EnrolBegin(ctx, alice.token, "browser of alice")))
	tell(second(w.SignIn(ctx, alice.addr, w.codeNow(alice.secret))))
	w.store.SetFail(nil)
	_, err = gw.GetStatus(ctx, &vpnv1.GetStatusRequest{})
	tell(err)
	// A secret that was sealed elsewhere.
	u := w.View().UserByName("alice")
	_, err = w.sealer.Open(u.ID, "device.preshared-key", peers.Sealed(u.TOTP))
	tell(err)
	must(second(gw.ListAudit(ctx, &vpnv1.ListAuditRequest{Limit: 10_000})))
	must(second(users.RemoveUser(ctx, &vpnv1.RemoveUserRequest{Name: "alice"})))
}
