package control

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	vpnv1 "vpnd/proto/vpn/v1"
)

const (
	maxRequest  = 2 << 20   // bytes: a policy is the largest
	maxResponse = 256 << 20 // bytes: the list of 1,000,000 devices
	maxStreams  = 256       // calls at once on one connection
	errorDomain = "vpnd"    // of ErrorInfo
)

// NewServer is the gRPC edge for administrators on this machine: every service, health
// and reflection. Only the daemon's own uid and root get through the handshake.
func NewServer(s *Service) *grpc.Server {
	g := newServer(s, peerCredentials{role: roleAdmin})
	vpnv1.RegisterUserServiceServer(g, userServer{s: s})
	vpnv1.RegisterDeviceServiceServer(g, deviceServer{s: s})
	vpnv1.RegisterSessionServiceServer(g, sessionServer{s: s})
	vpnv1.RegisterPolicyServiceServer(g, policyServer{s: s})
	vpnv1.RegisterGatewayServiceServer(g, gatewayServer{s: s})
	vpnv1.RegisterWhoIsServiceServer(g, whoIsServer{s: s})
	healthpb.RegisterHealthServer(g, s.health)
	reflection.Register(g)
	return g
}

// NewWhoIsServer is the edge for protected services: WhoIs alone, for whoever may open
// the socket.
func NewWhoIsServer(s *Service) *grpc.Server {
	g := newServer(s, peerCredentials{role: roleService})
	vpnv1.RegisterWhoIsServiceServer(g, whoIsServer{s: s})
	return g
}

func newServer(s *Service, creds peerCredentials) *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(creds),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxSendMsgSize(maxResponse),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
	)
}

// unary authorises a call, names its caller for the audit log, catches its panic and
// turns its error into a status.
func (s *Service) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	ctx, err = authorise(ctx, info.FullMethod)
	if err != nil {
		return nil, s.toStatus(info.FullMethod, err)
	}
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, s.toStatus(info.FullMethod, s.panicked(info.FullMethod, p))
		}
	}()
	resp, err = next(ctx, req)
	if err != nil {
		return nil, s.toStatus(info.FullMethod, err)
	}
	return resp, nil
}

// stream does the same for reflection and health's Watch.
func (s *Service) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	if _, err := authorise(ss.Context(), info.FullMethod); err != nil {
		return s.toStatus(info.FullMethod, err)
	}
	defer func() {
		if p := recover(); p != nil {
			err = s.toStatus(info.FullMethod, s.panicked(info.FullMethod, p))
		}
	}()
	return next(srv, ss) // the library's own handlers: they return statuses
}

// panicked logs a panic. Its value may quote the request unless the runtime made it.
func (s *Service) panicked(method string, p any) error {
	what := fmt.Sprintf("a value of type %T", p)
	var re runtime.Error
	if err, ok := p.(error); ok && errors.As(err, &re) {
		what = re.Error()
	}
	s.logf("%s panicked with %s\n%s", method, what, debug.Stack())
	return &Error{Code: CodeInternal, Message: "vpnd failed at this request. Its log says where; please tell an administrator."}
}

// toStatus carries an Error's word and its RetryAfter as details. Causes go to the log.
func (s *Service) toStatus(method string, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		if _, ok := status.FromError(err); ok {
			return err
		}
		switch {
		case errors.Is(err, context.Canceled):
			return status.Error(codes.Canceled, "the request was given up by its caller")
		case errors.Is(err, context.DeadlineExceeded):
			return status.Error(codes.DeadlineExceeded, "the request took longer than its caller would wait")
		}
		e = internal("do this", err)
	}
	code := statusOf(e.Code)
	if e.Err != nil && (code == codes.Internal || code == codes.Unavailable) {
		s.logf("%s: %v", method, e.Err)
	}
	st := status.New(code, e.Message)
	info := &errdetails.ErrorInfo{Reason: e.Code, Domain: errorDomain}
	withInfo, detailErr := st.WithDetails(info)
	if detailErr == nil && e.RetryAfter > 0 {
		withInfo, detailErr = withInfo.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
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
	return WithActor(ctx, fmt.Sprintf("uid %d", cred.uid)), nil
}

func denied(method string) *Error {
	return refuse(CodeDenied, "%s is not for you on this socket.", method)
}
