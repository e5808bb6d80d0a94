package recall

import (
	"context"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/bind"
)

// Handshakes go out in bursts: from 128 answers that wait, WireGuard takes itself to be
// under load and asks for cookies, which costs a peer 5 s.
const (
	burst = 16
	pause = 7 * time.Millisecond
)

// Handshakes are to be had with peers.
type Handshakes []handshake

type handshake struct {
	peer *device.Peer
	at   *bind.Endpoint
}

// Prepare finds the peers among those of dev; others are no devices any more. It is quick
// while nobody puts peers, which keeps everybody out for as long as a key takes.
func Prepare(dev *device.Device, peers []dataplane.Sighting) Handshakes {
	var out Handshakes
	for _, s := range peers {
		if p := dev.LookupPeer(device.NoisePublicKey(s.Key)); p != nil {
			out = append(out, handshake{p, bind.NewEndpoint(s.Endpoint, s.Local)})
		}
	}
	return out
}

// Send begins them, in order, from where the peers know us.
func (h Handshakes) Send(ctx context.Context) {
	for i, x := range h {
		if i%burst == burst-1 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
		x.peer.SetEndpointFromPacket(x.at)
		_ = x.peer.SendHandshakeInitiation(false) // WireGuard says what fails, and tries again
	}
}
