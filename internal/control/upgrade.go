package control

import "context"

// upgrade raises the state to the newest level that every member's vpnd knows, which with
// one node is this one's. Whoever leads does it before anything else.
func (n *node) upgrade(ctx context.Context) error {
	up, ok := n.View().Upgrade(n.version)
	if !ok {
		return nil
	}
	_, _, err := proposeTo(ctx, n.store, gatewayCommand(n.View(), n.now(), up))
	if _, still := n.View().Upgrade(n.version); !still {
		return nil // by this command, or by somebody else's before it, which makes this one too old
	}
	return err
}
