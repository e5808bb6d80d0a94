package control

import "vpnd/peers"

// A repeated request is told what State remembers of the first one: whom and what it was
// about, as they are by then. They may be gone, or belong to something else.

// deviceOf is the device that a command has given this key, if it still has it.
func deviceOf(res peers.Result, key peers.Key) (*peers.Device, error) {
	if res.Device == nil || res.Device.PublicKey != key {
		return nil, refuse(CodeConflict,
			"This was carried out before, and the device was changed or removed since. `vpnctl device ls` shows those that there are.")
	}
	return res.Device, nil
}

// userOf is the user that a command was about, if she is still there.
func userOf(res peers.Result) (*peers.User, error) {
	if res.User == nil {
		return nil, refuse(CodeConflict,
			"This was carried out before, and the user was removed since. `vpnctl user ls` shows those that there are.")
	}
	return res.User, nil
}
