package store

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// A node's Raft address is its node id. The StreamLayer resolves it when it dials, so
// that the host and port behind an id may change without a word in the log.

// newTransport speaks Raft over a StreamLayer. It is a *raft.NetworkTransport because
// that one has pre-vote, which Raft looks for in the transport's methods: whatever wraps
// it must embed it.
func newTransport(l raft.StreamLayer, logger hclog.Logger) raft.Transport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: l, MaxPool: 3, Timeout: 10 * time.Second, Logger: logger,
	})
}

var _ raft.WithPreVote = (*raft.NetworkTransport)(nil)

// nodeAddr is a node id as a net.Addr.
type nodeAddr string

func (nodeAddr) Network() string  { return "vpnd" }
func (a nodeAddr) String() string { return string(a) }

// alone is the StreamLayer of a node that knows no other: it opens no port.
type alone struct {
	id     nodeAddr
	closed chan struct{}
	once   sync.Once
}

func newAlone(id string) *alone { return &alone{id: nodeAddr(id), closed: make(chan struct{})} }

func (a *alone) Dial(id raft.ServerAddress, _ time.Duration) (net.Conn, error) {
	return nil, fmt.Errorf("node %s: no such node is known here", id)
}

func (a *alone) Accept() (net.Conn, error) {
	<-a.closed
	return nil, net.ErrClosed
}

func (a *alone) Addr() net.Addr { return a.id }

func (a *alone) Close() error {
	a.once.Do(func() { close(a.closed) })
	return nil
}
