package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// peerInfo is who is at the other end of a unix socket, as the kernel says.
type peerInfo struct {
	credentials.CommonAuthInfo
	role role
	uid  uint32
}

// AuthType names this kind of credential.
func (peerInfo) AuthType() string { return "unix-peer" }

// peerCredentials take SO_PEERCRED as the caller's credential. The connection never
// leaves this machine's kernel, so there is nothing to encrypt.
type peerCredentials struct {
	role role
	log  *slog.Logger // gRPC tells nobody whom this refuses
}

// ServerHandshake refuses whoever may not speak on this socket at all: the file's mode
// does too, but a mode can be changed by hand.
func (c peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	uc, ok := conn.(syscall.Conn)
	if !ok || conn.LocalAddr().Network() != "unix" {
		return nil, nil, errors.New("only unix sockets carry a caller's uid")
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, nil, fmt.Errorf("ask who is calling: %w", err)
	}
	var (
		cred    *unix.Ucred
		credErr error
	)
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, nil, fmt.Errorf("ask who is calling: %w", err)
	}
	if credErr != nil {
		return nil, nil, fmt.Errorf("ask who is calling: %w", credErr)
	}
	if c.role == roleAdmin && !mayAdminister(cred.Uid, uint32(os.Geteuid())) {
		c.log.Warn("refused a connection", "what", "control socket", "who", fmt.Sprintf("uid %d", cred.Uid), "why", "only root and vpnd's own user may administer this gateway")
		return nil, nil, fmt.Errorf("uid %d may not administer this gateway", cred.Uid)
	}
	return conn, peerInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		role:           c.role, uid: cred.Uid,
	}, nil
}

// mayAdminister allows root and the daemon's own uid.
func mayAdminister(uid, own uint32) bool { return uid == 0 || uid == own }

// ClientHandshake is no part of a server.
func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a server's")
}

// Info describes the credentials to gRPC.
func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix-peer"}
}

// Clone returns a copy.
func (c peerCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName does nothing: there are no names.
func (peerCredentials) OverrideServerName(string) error { return nil }
