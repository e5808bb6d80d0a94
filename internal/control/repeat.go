package control

import (
	"context"
	"time"

	"vpnd/peers"
)

// A repeated request is told what State remembers of the first one: whom and what it was
// about, as they are by then. They may be gone, or belong to something else. Most requests
// simply make their command again, which State knows. Who would refuse before that, because
// of what the first one has changed, looks here first.

// before is what this request's first command was answered, if it was carried out already.
func (d *decision) before() (a peers.Answer, ok bool) {
	a, ok = d.View().Answer(derive(d.id, 1))
	if a.Index == 0 {
		a.Index = d.View().Index()
	}
	return a, ok
}

// told answers a repeat of a request of one command.
func told(first peers.Answer) (Answer, error) {
	if first.Result.Err != nil {
		return Answer{}, refused(first.Result.Err)
	}
	a := Answer{Index: first.Index, Count: first.Result.Count}
	if p := first.Result.Policy; p != nil {
		a.Policy = p.Version
	}
	return a, nil
}

// evaluated is before for a request with a code of u, whose lock the caller holds: what was
// evaluated under an id is not evaluated again. A code that was accepted is answered so.
func (d *decision) evaluated(ctx context.Context, u *peers.User) (first peers.Answer, ok bool, err error) {
	switch first, ok = d.before(); {
	case !ok:
	case first.Actor != u.Name:
		err = Refuse("request_of_another")
	case first.To(peers.Failure{}): // the same command: State counts it once
		err = d.countFailure(ctx, u, d.Time(d.View()))
	case first.Result.Err != nil:
		err = d.codeRefused(u, refused(first.Result.Err))
	}
	return first, ok, err
}

// deviceOf is the device that a command has given this key, if it still has it.
func deviceOf(res peers.Result, key peers.Key) (*peers.Device, error) {
	if res.Device == nil || res.Device.PublicKey != key {
		return nil, Refuse("repeat_device_changed")
	}
	return res.Device, nil
}

// endOf is when an invitation ends, which was made when the request came for the first time.
func endOf(res peers.Result, n peers.NewInvitation) time.Time {
	if res.Invitation != nil {
		return res.Invitation.Expires
	}
	return n.Expires
}

// userOf is the user that a command was about, if she is still there.
func userOf(res peers.Result) (*peers.User, error) {
	if res.User == nil {
		return nil, Refuse("repeat_user_gone")
	}
	return res.User, nil
}
