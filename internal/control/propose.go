package control

import (
	"context"
	"errors"
	"time"

	"vpnd/internal/store"
	"vpnd/peers"
)

const (
	proposeWait  = 10 * time.Second // for a command to be committed
	gatewayWait  = 10 * time.Second // for the plane to hold it
	proposeTries = 3                // of a command whose outcome is unknown
)

// proposeTo commits a command and returns its index and result; a refusal is an *Error. It
// repeats a command whose outcome is unknown as it was first made, which State answers with
// the first result.
func proposeTo(ctx context.Context, st Store, cmd peers.Command) (uint64, peers.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, proposeWait)
	defer cancel()
	if !st.State().View().Takes(cmd.Body) {
		return 0, peers.Result{}, Refuse("not_upgraded")
	}
	var (
		index uint64
		res   peers.Result
		err   error
	)
	for range proposeTries {
		index, res, err = st.Propose(ctx, cmd)
		if !errors.Is(err, store.ErrUnknown) || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return 0, peers.Result{}, unproposed(err)
	}
	if res.Err != nil {
		return index, res, refused(res.Err)
	}
	return index, res, nil
}

// opened waits until this gateway holds what was committed at index; notYet is what it
// refuses with otherwise.
func (s *Service) opened(ctx context.Context, index uint64, notYet string) error {
	ctx, cancel := context.WithTimeout(ctx, gatewayWait)
	defer cancel()
	if err := s.gateway.Wait(ctx, index); err != nil {
		return Refuse(notYet).because(err)
	}
	return nil
}

// Closed says whether a gateway has carried a change out.
type Closed struct {
	Gateway string // node id
	Done    bool
	Error   string // why not yet
}

// closed waits until this gateway has carried out the command at index, and says so. The
// change is committed either way: an answer without Done is not a failure of it.
func (s *Service) closed(ctx context.Context, index uint64) []Closed {
	ctx, cancel := context.WithTimeout(ctx, gatewayWait)
	defer cancel()
	c := Closed{Gateway: s.store.NodeID(), Done: true}
	if err := s.gateway.Wait(ctx, index); err != nil {
		s.log.Warn("the data plane has not carried out a change yet", "what", "plane.wait", "index", index, "why", err)
		c.Done, c.Error = false, "not carried out yet: "+err.Error()
	}
	return []Closed{c}
}
