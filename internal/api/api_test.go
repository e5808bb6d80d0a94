package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"vpnd/internal/control"
	"vpnd/internal/control/controltest"
	"vpnd/peers"
	vpnv1 "vpnd/proto/vpn/v1"
)

// serve starts a server on a socket and returns a connection to it.
func serve(t testing.TB, g *grpc.Server, l net.Listener, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("serve: %v", err)
		}
	})
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	cc, err := grpc.NewClient("unix:"+l.Addr().String(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func (w *world) admin(opts ...grpc.DialOption) *grpc.ClientConn {
	w.t.Helper()
	l, err := ListenControl(filepath.Join(w.t.TempDir(), "control.sock"))
	if err != nil {
		w.t.Fatal(err)
	}
	return serve(w.t, w.edge.Control(), l, opts...)
}

func methodsOf(g *grpc.Server) (list []string) {
	for service, info := range g.GetServiceInfo() {
		for _, m := range info.Methods {
			list = append(list, "/"+service+"/"+m.Name)
		}
	}
	return list
}

// Every method of every service has a line in the table, and every line a method.
func TestEveryMethodIsAuthorised(t *testing.T) {
	w := newWorld(t)
	admin, who := methodsOf(w.edge.Control()), methodsOf(w.edge.WhoIs())
	if len(admin) < 25 {
		t.Fatalf("only %d methods were found", len(admin))
	}
	if len(who) != 1 || who[0] != vpnv1.WhoIsService_WhoIs_FullMethodName {
		t.Errorf("whois.sock offers %v", who)
	}
	known := map[string]bool{}
	for _, m := range append(admin, who...) {
		known[m] = true
		if allowed[m] == 0 {
			t.Errorf("%s is in no line of the table", m)
		}
		if allowed[m].has(roleService) != (m == vpnv1.WhoIsService_WhoIs_FullMethodName) {
			t.Errorf("%s: a protected service may call WhoIs and nothing else", m)
		}
	}
	for m := range allowed {
		if !known[m] {
			t.Errorf("the table has %s, which no server offers", m)
		}
	}
}

func TestDefaultDeny(t *testing.T) {
	const method = vpnv1.UserService_AddUser_FullMethodName
	with := func(r role) context.Context {
		return peer.NewContext(t.Context(), &peer.Peer{AuthInfo: peerInfo{role: r, uid: 1000}})
	}
	if _, err := authorise(with(roleAdmin), method); err != nil {
		t.Errorf("an administrator: %v", err)
	}
	for name, ctx := range map[string]context.Context{
		"no peer": t.Context(), "no credentials": peer.NewContext(t.Context(), &peer.Peer{}), "no role": with(0), "a protected service": with(roleService),
	} {
		if _, err := authorise(ctx, method); err == nil {
			t.Errorf("%s may add a user", name)
		}
	}
	if _, err := authorise(with(roleAdmin), "/vpn.v1.UserService/Unknown"); err == nil {
		t.Error("a method that is not in the table was allowed")
	}
	for _, c := range []struct {
		uid, own uint32
		want     bool
	}{{0, 1000, true}, {1000, 1000, true}, {1001, 1000, false}, {1000, 0, false}, {0, 0, true}} {
		if got := mayAdminister(c.uid, c.own); got != c.want {
			t.Errorf("uid %d at a daemon of uid %d: %v", c.uid, c.own, got)
		}
	}
}

func TestGRPC(t *testing.T) {
	w := newWorld(t)
	cc := w.admin()
	ctx := t.Context()
	users, devices := vpnv1.NewUserServiceClient(cc), vpnv1.NewDeviceServiceClient(cc)
	added, err := users.AddUser(ctx, &vpnv1.AddUserRequest{Name: "alice", Valid: durationpb.New(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	inv := added.GetInvitation()
	if !strings.HasPrefix(inv.GetLink(), "https://vpn.example.com:8443/enroll#") || inv.GetCaFingerprint() == "" ||
		time.Until(inv.GetExpiresAt().AsTime()).Round(time.Minute) != time.Hour || !added.GetUser().GetInvitedUntil().AsTime().Equal(inv.GetExpiresAt().AsTime()) {
		t.Errorf("invitation until %v, fingerprint %s", inv.GetExpiresAt().AsTime(), inv.GetCaFingerprint())
	}
	wantStatus(t, second(users.AddUser(ctx, &vpnv1.AddUserRequest{Name: "Alice"})), codes.AlreadyExists, control.KindExists)
	wantStatus(t, second(users.AddUser(ctx, &vpnv1.AddUserRequest{Name: "a\nb"})), codes.InvalidArgument, control.KindInvalid)
	wantStatus(t, second(users.AddUser(ctx, &vpnv1.AddUserRequest{Name: "bob", Valid: durationpb.New(-1)})), codes.InvalidArgument, control.KindInvalid)
	wantStatus(t, second(users.GetUser(ctx, &vpnv1.GetUserRequest{Name: "nobody"})), codes.NotFound, control.KindNotFound)

	key := publicKey(t)
	d, err := devices.AddDevice(ctx, &vpnv1.AddDeviceRequest{User: "alice", Name: "laptop", PublicKey: key, Tags: []string{"tag:b", "tag:a", "tag:b"}})
	if err != nil {
		t.Fatal(err)
	}
	if d.GetDevice().GetName() != "alice/laptop" || strings.Join(d.GetDevice().GetTags(), " ") != "tag:a tag:b" || strings.Contains(d.GetConfig(), "PrivateKey") {
		t.Errorf("device %v", d.GetDevice())
	}
	wantStatus(t, second(devices.AddDevice(ctx, &vpnv1.AddDeviceRequest{User: "alice", Name: "other", PublicKey: key})), codes.AlreadyExists, control.KindKeyTaken)
	wantStatus(t, second(devices.GetDevice(ctx, &vpnv1.GetDeviceRequest{Name: "laptop"})), codes.InvalidArgument, control.KindInvalid)
	wantStatus(t, second(devices.AddDevice(ctx, &vpnv1.AddDeviceRequest{User: "alice", Name: "x", PublicKey: strings.Repeat("A", 43) + "="})), codes.InvalidArgument, control.KindInvalid)
	r, err := devices.RotateDevice(ctx, &vpnv1.RotateDeviceRequest{Name: "alice/laptop", PublicKey: publicKey(t)})
	if err != nil || r.GetConfig() == d.GetConfig() || len(r.GetClosed()) != 1 || !r.GetClosed()[0].GetDone() || r.GetClosed()[0].GetGateway() != w.store.NodeID() {
		t.Errorf("rotate: closed %v, %v", r.GetClosed(), err)
	}
	// The former key is never taken again.
	wantStatus(t, second(devices.AddDevice(ctx, &vpnv1.AddDeviceRequest{User: "alice", Name: "old", PublicKey: key})), codes.AlreadyExists, control.KindKeyTaken)

	p := w.enrolled("bob")
	w.nextPeriod()
	if _, err := w.SignIn(ctx, p.addr, w.codeNow(p.secret)); err != nil {
		t.Fatal(err)
	}
	sessions := vpnv1.NewSessionServiceClient(cc)
	ls, err := sessions.ListSessions(ctx, &vpnv1.ListSessionsRequest{User: "bob"})
	if err != nil || len(ls.GetSessions()) != 1 || ls.GetSessions()[0].GetDevice() != "bob/phone" {
		t.Errorf("sessions %v, %v", ls, err)
	}
	wantStatus(t, second(sessions.EndSessions(ctx, &vpnv1.EndSessionsRequest{})), codes.InvalidArgument, control.KindInvalid)
	wantStatus(t, second(sessions.EndSessions(ctx, &vpnv1.EndSessionsRequest{Which: &vpnv1.EndSessionsRequest_User{}})), codes.InvalidArgument, control.KindInvalid)
	wantStatus(t, second(sessions.EndSessions(ctx, &vpnv1.EndSessionsRequest{Which: &vpnv1.EndSessionsRequest_All{}})), codes.InvalidArgument, control.KindInvalid)
	// A plane that has not closed is told, and does not undo the end.
	w.gateway.Set(func(g *controltest.Gateway) { g.Fail = errors.New("nft is busy") })
	end, err := sessions.EndSessions(ctx, &vpnv1.EndSessionsRequest{Which: &vpnv1.EndSessionsRequest_User{User: "bob"}})
	if err != nil || end.GetEnded() != 1 || end.GetClosed()[0].GetDone() || !strings.Contains(end.GetClosed()[0].GetError(), "nft is busy") {
		t.Errorf("end %v, %v", end, err)
	}
	w.gateway.Set(func(g *controltest.Gateway) { g.Fail = nil })

	who := vpnv1.NewWhoIsServiceClient(cc)
	me, err := who.WhoIs(ctx, &vpnv1.WhoIsRequest{Address: "::ffff:" + p.addr.String()})
	if err != nil || me.GetUser() != "bob" || me.GetDevice() != "phone" || me.GetSessionExpiresAt() != nil || me.GetAddress() != p.addr.String() {
		t.Errorf("whois %v, %v", me, err)
	}
	wantStatus(t, second(who.WhoIs(ctx, &vpnv1.WhoIsRequest{Address: "10.77.9.9"})), codes.NotFound, control.KindNotFound)
	wantStatus(t, second(who.WhoIs(ctx, &vpnv1.WhoIsRequest{Address: "alice"})), codes.InvalidArgument, control.KindInvalid)

	gw := vpnv1.NewGatewayServiceClient(cc)
	st, err := gw.GetStatus(ctx, &vpnv1.GetStatusRequest{})
	if err != nil || st.GetRole() != "leader" || st.GetPlane() != "fake" || st.GetUsers() != 2 || st.GetDevices() != 2 || st.GetSessions() != 0 || st.GetVersion() != "test" || st.GetTunnelUrl() != "http://10.77.0.1/" {
		t.Errorf("status %v, %v", st, err)
	}
	set, err := gw.SetSettings(ctx, &vpnv1.SetSettingsRequest{Routes: []string{"192.0.2.0/24"}, SetRoutes: true})
	if err != nil || strings.Join(set.GetOutdated(), " ") != "alice/laptop bob/phone" {
		t.Errorf("settings %v, %v", set, err)
	}
	out, err := devices.ListDevices(ctx, &vpnv1.ListDevicesRequest{Outdated: true})
	if err != nil || len(out.GetDevices()) != 2 {
		t.Errorf("outdated %v, %v", out, err)
	}
	for _, bad := range []*vpnv1.SetSettingsRequest{
		{}, {Routes: []string{"192.0.2.1/24"}, SetRoutes: true}, {Routes: []string{"x"}, SetRoutes: true},
		{Dns: []string{"x"}, SetDns: true}, {Session: durationpb.New(0)}, {Url: ptr("http://vpn.example.com")}, {Endpoint: ptr("vpn.example.com")},
	} {
		wantStatus(t, second(gw.SetSettings(ctx, bad)), codes.InvalidArgument, control.KindInvalid)
	}
	audit, err := gw.ListAudit(ctx, &vpnv1.ListAuditRequest{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	uid := fmt.Sprintf("uid %d", os.Geteuid())
	seen := map[string]string{}
	for _, e := range audit.GetEntries() {
		seen[e.GetAction()] = e.GetActor()
	}
	if seen["user.add"] != "gateway" || seen["session.end"] != uid || seen["session.start"] != "bob" || seen["device.enrol"] != "bob" || seen["settings.set"] != uid {
		t.Errorf("actors in the audit log: %v", seen)
	}
	wantStatus(t, second(gw.ListAudit(ctx, &vpnv1.ListAuditRequest{Limit: auditMax + 1})), codes.InvalidArgument, control.KindTooLarge)
}

func ptr[T any](v T) *T { return &v }

// wantStatus fails unless err is a status of this code with an ErrorInfo of this kind.
func wantStatus(t *testing.T, err error, code codes.Code, kind string) *status.Status {
	t.Helper()
	st, ok := status.FromError(err)
	if !ok || err == nil || st.Code() != code {
		t.Fatalf("error %v, want %v", err, code)
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			if (&control.Error{Code: info.GetReason()}).Kind() != kind || info.GetDomain() != "vpnd" {
				t.Fatalf("reason %q of %q, want one of kind %q", info.GetReason(), info.GetDomain(), kind)
			}
			return st
		}
	}
	t.Fatalf("%v has no ErrorInfo", err)
	return nil
}

// Whoever gave up, or waits no longer, is told so by a code as for any refusal.
func TestEndedContext(t *testing.T) {
	w := newWorld(t)
	st := wantStatus(t, w.edge.toStatus(t.Context(), "/m", fmt.Errorf("waiting: %w", context.Canceled)), codes.Canceled, control.KindCanceled)
	if want := "The request was given up by its caller."; st.Message() != want {
		t.Errorf("says %q", st.Message())
	}
	st = wantStatus(t, w.edge.toStatus(t.Context(), "/m", fmt.Errorf("waiting: %w", context.DeadlineExceeded)), codes.DeadlineExceeded, control.KindDeadline)
	if want := "The request took longer than its caller would wait. Look whether it was carried out before you try again."; st.Message() != want {
		t.Errorf("says %q", st.Message())
	}
}

func TestRetryInfo(t *testing.T) {
	w := newWorld(t)
	err := w.edge.toStatus(t.Context(), "/m", &control.Error{Code: "user_locked", Params: []peers.Param{{Name: "user", Value: "alice"}, {Name: "until", Value: "2030-01-02T15:04:05Z"}}, RetryAfter: 90 * time.Second})
	st := wantStatus(t, err, codes.ResourceExhausted, control.KindLocked)
	if want := "There were too many wrong codes in a row, so none is checked for alice until 2 January, 15:04 UTC. Wait, or ask an administrator to lift the lock."; st.Message() != want {
		t.Errorf("says %q", st.Message())
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && (info.GetReason() != "user_locked" || info.GetMetadata()["user"] != "alice" || info.GetMetadata()["until"] != "2030-01-02T15:04:05Z") {
			t.Errorf("ErrorInfo %v", info)
		}
	}
	for _, d := range st.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok && r.GetRetryDelay().AsDuration() == 90*time.Second {
			return
		}
	}
	t.Errorf("no RetryInfo in %v", st.Details())
}

// An unexpected error and a panic are told in general words; the log has the cause, but
// not what the request held.
func TestPanicAndInternal(t *testing.T) {
	w := newWorld(t)
	ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: peerInfo{role: roleAdmin}})
	info := &grpc.UnaryServerInfo{FullMethod: vpnv1.UserService_AddUser_FullMethodName}
	call := func(h func()) error {
		_, err := w.edge.unary(ctx, nil, info, func(context.Context, any) (any, error) {
			h()
			return nil, errors.New("disk on fire")
		})
		return err
	}
	for _, h := range []func(){
		func() { panic("canary-in-a-panic") },
		func() { panic(errors.New("canary-in-a-panic")) },
		func() { writeTo(nil) },
		func() {},
	} {
		st := wantStatus(t, call(h), codes.Internal, control.KindInternal)
		if strings.Contains(st.Message(), "disk") || strings.Contains(st.Message(), "canary") || strings.Contains(st.Message(), "map") {
			t.Errorf("told: %s", st.Message())
		}
	}
	log := w.log.String()
	if strings.Contains(log, "canary") {
		t.Error("a panic's value is in the log")
	}
	for _, want := range []string{"nil map", "disk on fire", info.FullMethod, "api_test.go"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
}

func writeTo(m map[string]int) { m["x"] = 1 }

func TestHealthAndReflection(t *testing.T) {
	w := newWorld(t)
	cc := w.admin()
	ctx := t.Context()
	defer w.running()()
	w.gateway.Set(func(g *controltest.Gateway) { g.Waited = append(g.Waited, 1<<40) })
	watch, err := healthpb.NewHealthClient(cc).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for {
			r, err := watch.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if r.GetStatus() == want {
				return
			}
		}
	}
	next(healthpb.HealthCheckResponse_SERVING)
	w.store.Follower.Store(true)
	next(healthpb.HealthCheckResponse_NOT_SERVING)

	stream, err := reflectionpb.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	r, err := stream.Recv()
	if err != nil || len(r.GetListServicesResponse().GetService()) < 8 {
		t.Errorf("reflection lists %v, %v", r, err)
	}
}

func TestMessageLimit(t *testing.T) {
	w := newWorld(t)
	cc := w.admin(grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(64 << 20)))
	_, err := vpnv1.NewPolicyServiceClient(cc).CheckPolicy(t.Context(), &vpnv1.CheckPolicyRequest{Text: strings.Repeat("x", 3<<20)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("3 MiB: %v", err)
	}
	_, err = vpnv1.NewPolicyServiceClient(cc).CheckPolicy(t.Context(), &vpnv1.CheckPolicyRequest{Text: strings.Repeat("x", 1<<20+1)})
	wantStatus(t, err, codes.InvalidArgument, control.KindTooLarge)
}
