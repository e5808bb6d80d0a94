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
	pause = 10 * time.Millisecond
)

// Shake shakes hands with the peers of dev, in order, from where they know us.
func Shake(ctx context.Context, dev *device.Device, peers []dataplane.Sighting) {
	for i, s := range peers {
		if i%burst == burst-1 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
		p := dev.LookupPeer(device.NoisePublicKey(s.Key))
		if p == nil {
			continue // it is no device any more
		}
		p.SetEndpointFromPacket(bind.NewEndpoint(s.Endpoint, s.Local))
		_ = p.SendHandshakeInitiation(false) // WireGuard says what fails, and tries again
	}
}
