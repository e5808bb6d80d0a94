// Package api is the gRPC edge: sockets, the credential of who calls, the table of who may
// call what. It decodes, calls control, and encodes; it decides nothing else.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"vpnd/internal/control"
	"vpnd/internal/words"
	vpnv1 "vpnd/proto/vpn/v1"
)

const (
	maxRequest  = 2 << 20   // bytes: a policy is the largest
	maxResponse = 256 << 20 // bytes: the list of 1,000,000 devices
	maxStreams  = 256       // calls at once on one connection
	errorDomain = "vpnd"    // of ErrorInfo
)

// Edge offers control's use cases over gRPC.
type Edge struct {
	s      *control.Service
	log    *slog.Logger
	health *health.Server

	// Doctor looks at the installation, which the edge knows nothing of.
	Doctor func(context.Context, *vpnv1.DiagnoseRequest) (*vpnv1.DiagnoseResponse, error)
}

// New returns an Edge; Run keeps its answer to health checks.
func New(s *control.Service, log *slog.Logger) *Edge {
	return &Edge{s: s, log: log, health: health.NewServer()}
}

// Control is the server for administrators on this machine: every service, health and
// reflection. Only the daemon's own uid and root get through the handshake.
func (e *Edge) Control() *grpc.Server {
	g := e.server(peerCredentials{role: roleAdmin, log: e.log})
	vpnv1.RegisterUserServiceServer(g, userServer{Edge: e})
	vpnv1.RegisterDeviceServiceServer(g, deviceServer{Edge: e})
	vpnv1.RegisterSessionServiceServer(g, sessionServer{Edge: e})
	vpnv1.RegisterPolicyServiceServer(g, policyServer{Edge: e})
	vpnv1.RegisterGatewayServiceServer(g, gatewayServer{Edge: e})
	vpnv1.RegisterWhoIsServiceServer(g, whoIsServer{Edge: e})
	healthpb.RegisterHealthServer(g, e.health)
	reflection.Register(g)
	return g
}

// WhoIs is the server for protected services: WhoIs alone, for whoever may open the
// socket.
func (e *Edge) WhoIs() *grpc.Server {
	g := e.server(peerCredentials{role: roleService, log: e.log})
	vpnv1.RegisterWhoIsServiceServer(g, whoIsServer{Edge: e})
	return g
}

func (e *Edge) server(creds peerCredentials) *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(creds),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxSendMsgSize(maxResponse),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(e.unary),
		grpc.StreamInterceptor(e.stream),
	)
}

// unary authorises a call, names its caller for the audit log, catches its panic and
// turns its error into a status.
func (e *Edge) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	ctx, err = authorise(ctx, info.FullMethod)
	if err != nil {
		return nil, e.toStatus(ctx, info.FullMethod, err)
	}
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, e.toStatus(ctx, info.FullMethod, e.panicked(ctx, info.FullMethod, p))
		}
	}()
	resp, err = next(ctx, req)
	if err != nil {
		return nil, e.toStatus(ctx, info.FullMethod, err)
	}
	return resp, nil
}

// stream does the same for reflection and health's Watch.
func (e *Edge) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	ctx := ss.Context()
	if _, err := authorise(ctx, info.FullMethod); err != nil {
		return e.toStatus(ctx, info.FullMethod, err)
	}
	defer func() {
		if p := recover(); p != nil {
			err = e.toStatus(ctx, info.FullMethod, e.panicked(ctx, info.FullMethod, p))
		}
	}()
	return next(srv, ss) // the library's own handlers: they return statuses
}

// panicked logs a panic. Its value may quote the request unless the runtime made it.
func (e *Edge) panicked(ctx context.Context, method string, p any) error {
	what := fmt.Sprintf("a value of type %T", p)
	var re runtime.Error
	if err, ok := p.(error); ok && errors.As(err, &re) {
		what = re.Error()
	}
	e.log.Warn("a request panicked", "what", method, "who", callerName(ctx), "why", what, "stack", string(debug.Stack()))
	return control.Refuse("internal")
}

// toStatus makes a refusal words, in English, and carries its code, its parameters and its
// RetryAfter as details. Causes go to the log.
func (e *Edge) toStatus(ctx context.Context, method string, err error) error {
	var refusal *control.Error
	if !errors.As(err, &refusal) {
		if _, ok := status.FromError(err); ok {
			return err
		}
		switch {
		case errors.Is(err, context.Canceled):
			refusal = control.Refuse("canceled")
		case errors.Is(err, context.DeadlineExceeded):
			refusal = control.Refuse("deadline")
		default:
			refusal = control.Refuse("internal")
			refusal.Err = err
		}
	}
	code := statusOf(refusal.Kind())
	if refusal.Err != nil && (code == codes.Internal || code == codes.Unavailable) {
		e.log.Warn("refused a request", "what", method, "who", callerName(ctx), "why", refusal.Err)
	} else { // the code alone: its parameters are what the caller wrote
		e.log.Debug("refused a request", "what", method, "who", callerName(ctx), "why", refusal.Code)
	}
	st := status.New(code, words.English().Refusal(refusal.Code, refusal.Values()))
	info := &errdetails.ErrorInfo{Reason: refusal.Code, Domain: errorDomain, Metadata: refusal.Values()}
	withInfo, detailErr := st.WithDetails(info)
	if detailErr == nil && refusal.RetryAfter > 0 {
		withInfo, detailErr = withInfo.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(refusal.RetryAfter)})
	}
	if detailErr != nil {
		return st.Err()
	}
	return withInfo.Err()
}

// authorise looks the method up in the table and names the caller.
func authorise(ctx context.Context, method string) (context.Context, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ctx, denied(method)
	}
	cred, ok := p.AuthInfo.(peerInfo)
	if !ok || !allowed[method].has(cred.role) {
		return ctx, denied(method)
	}
	return control.Arrived(ctx, callerName(ctx)), nil
}

// callerName is who calls, for the log: the uid that the kernel has told.
func callerName(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		if cred, ok := p.AuthInfo.(peerInfo); ok {
			return fmt.Sprintf("uid %d", cred.uid)
		}
	}
	return "nobody known"
}

func denied(method string) *control.Error {
	return control.Refuse("denied", method)
}
