package control

import (
	"context"
	"errors"
	"net/netip"

	"vpnd/peers"
)

// SelfTest makes a peer that is nobody's and carries out the test with the addresses that it
// got, when this gateway's plane has it. The peer is gone afterwards, and after its minute
// whatever happens. It is for the gateway's own work: no edge leads to it.
func (s *Service) SelfTest(ctx context.Context, key peers.Key, test func(ctx context.Context, addrs []netip.Addr) error) error {
	if !s.store.Leader() {
		return Refuse("no_leader")
	}
	if err := s.upgrade(ctx); err != nil {
		s.log.Warn("the state's level could not be raised", "what", "state.upgrade", "why", cause(err))
	}
	index, _, err := proposeTo(ctx, s.store, gatewayCommand(s.View(), s.now(), peers.SelfTestBegin{PublicKey: key}))
	if err != nil {
		return err
	}
	defer func() {
		after := context.WithoutCancel(ctx) // proposeTo bounds it
		if _, _, err := proposeTo(after, s.store, gatewayCommand(s.View(), s.now(), peers.SelfTestEnd{PublicKey: key})); err != nil {
			s.log.Warn("a self-test could not be ended; it ends by itself", "what", "gateway.selftest", "why", cause(err))
		}
	}()
	if err := s.gateway.Wait(ctx, index); err != nil {
		return err
	}
	for x := range s.View().SelfTests() {
		if x.PublicKey == key {
			return test(ctx, x.Addrs)
		}
	}
	return errors.New("it ended before it began")
}
